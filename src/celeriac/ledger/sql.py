"""SQL text with the few words that SQLite and Postgres spell differently.

A statement is written once. `{rows}` becomes a table read from one JSON parameter named
`rows`, so that a whole batch is one statement, one round trip and one release of the GIL.
`{lock}` and `{skip_locked}` mean something on Postgres only; SQLite has one writer. Rows that
are locked together are locked in the order of their keys, so that two batches never wait for each other.
"""

import re
from functools import cache

import msgspec
from sqlalchemy import TextClause, text

_POSTGRES = {"text": "text", "int": "bigint", "real": "double precision"}
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_encode = msgspec.json.Encoder().encode


class Sql:
    """A statement; the keyword arguments name the columns of `{rows}` with their types."""

    def __init__(self, template: str, **columns: str) -> None:
        self._template = template
        self._columns = columns
        self.text = cache(self._text)
        self.on = cache(self._on)

    def _text(self, dialect: str) -> str:
        """Return the statement as the dialect's driver takes it."""
        told = self._told(dialect)
        return told if dialect == "sqlite" else _PARAMETER.sub(r"%(\1)s", told.replace("%", "%%"))

    def _on(self, dialect: str) -> TextClause:
        """Return the statement for SQLAlchemy."""
        return text(self._told(dialect))

    def _told(self, dialect: str) -> str:
        words = {"rows": self._rows(dialect), "by": _IndexHint(dialect), "among": _Among(dialect), **_WORDS[dialect]}
        return self._template.format(**words)

    def _rows(self, dialect: str) -> str:
        if dialect == "postgresql":
            columns = ", ".join(f"{name} {_POSTGRES[kind]}" for name, kind in self._columns.items())
            return f"jsonb_to_recordset(CAST(:rows AS jsonb)) AS v({columns})"
        columns = ", ".join(f"value->>'{name}' AS {name}" for name in self._columns)
        return f"(SELECT {columns} FROM json_each(:rows)) AS v"


class Insert(Sql):
    """Adds a batch of rows to a table; `suffix` holds a conflict clause or RETURNING."""

    def __init__(self, table: str, suffix: str = "", **columns: str) -> None:
        names = ", ".join(f"v.{name}" for name in columns)
        template = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {names} FROM {{rows}} WHERE true {suffix}"
        super().__init__(template, **columns)


class _IndexHint:
    """`{by[jobs_ready]}`: SQLite, which keeps no statistics here, is told which index serves a hot statement."""

    def __init__(self, dialect: str) -> None:
        self._sqlite = dialect == "sqlite"

    def __getitem__(self, index: str) -> str:
        return f"INDEXED BY {index}" if self._sqlite else ""


class _Among:
    """`x IN ({among[names]})`: the values of the JSON list in the parameter `names`."""

    def __init__(self, dialect: str) -> None:
        sqlite = dialect == "sqlite"
        self._query = "SELECT value FROM json_each(:{})" if sqlite else _WORDS[dialect]["each"].replace(":each", ":{}")

    def __getitem__(self, name: str) -> str:
        return self._query.format(name)


# `{by_key}`: no index but the key, however tempting one looks to SQLite for another condition.
# `key {once} SELECT … {end}`: one of these rows, found before anything else is done. Postgres may repeat what stands
# in an IN for each row, and would take more than its LIMIT.
# `FROM {rows} CROSS JOIN {for_each} SELECT x AS value … {end_each} AS k`: a query for each row, which it may refer to.
# `{each}` and `{each_int}`: a one-column query over the JSON list in the parameter `each`.
_WORDS = {
    "sqlite": {
        "by_key": "NOT INDEXED",
        "each": "SELECT value FROM json_each(:each)",
        "each_int": "SELECT value FROM json_each(:each)",
        "lock": "",
        "lock_row": "",
        "skip_locked": "",
        "once": "IN (",
        "end": ")",
        "for_each": "json_each((SELECT json_group_array(value) FROM (",
        "end_each": ")))",
    },
    "postgresql": {
        "by_key": "",
        "each": "SELECT jsonb_array_elements_text(CAST(:each AS jsonb))",
        "each_int": "SELECT CAST(x AS bigint) FROM jsonb_array_elements_text(CAST(:each AS jsonb)) AS x",
        "lock": "ORDER BY jobs.key FOR UPDATE OF jobs",
        "lock_row": "FOR UPDATE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
        "once": "= ANY (ARRAY(",
        "end": "))",
        "for_each": "LATERAL (",
        "end_each": ")",
    },
}


def as_json(value: object) -> str:
    """Return a value as JSON text, as every JSON column and parameter is written."""
    return _encode(value).decode()
