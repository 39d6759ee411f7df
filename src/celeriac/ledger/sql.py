"""SQL text with the few words that SQLite and Postgres spell differently.

A statement is written once. `{rows}` becomes a table read from one JSON parameter named
`rows`, so that a whole batch is one statement, one round trip and one release of the GIL.
`{lock}` and `{skip_locked}` mean something on Postgres only; SQLite has one writer.
"""

from functools import cache

import msgspec
from sqlalchemy import TextClause, text

_POSTGRES = {"text": "text", "int": "bigint", "real": "double precision"}
_encode = msgspec.json.Encoder().encode


class Sql:
    """A statement; the keyword arguments name the columns of `{rows}` with their types."""

    def __init__(self, template: str, **columns: str) -> None:
        self._template = template
        self._columns = columns
        self.text = cache(self._text)
        self.on = cache(self._on)

    def _text(self, dialect: str) -> str:
        """Return the statement as text, with its parameters as `:name`."""
        words = {"rows": self._rows(dialect), "by": _IndexHint(dialect), **_WORDS[dialect]}
        return self._template.format(**words)

    def _on(self, dialect: str) -> TextClause:
        return text(self.text(dialect))

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


# `{by_key}`: no index but the key, however tempting one looks to SQLite for another condition.
# `{each}` and `{each_int}`: a one-column query over the JSON list in the parameter `each`.
_WORDS = {
    "sqlite": {
        "by_key": "NOT INDEXED",
        "each": "SELECT value FROM json_each(:each)",
        "each_int": "SELECT value FROM json_each(:each)",
        "lock": "",
        "lock_row": "",
        "skip_locked": "",
    },
    "postgresql": {
        "by_key": "",
        "each": "SELECT jsonb_array_elements_text(CAST(:each AS jsonb))",
        "each_int": "SELECT CAST(x AS bigint) FROM jsonb_array_elements_text(CAST(:each AS jsonb)) AS x",
        "lock": "FOR UPDATE OF jobs",
        "lock_row": "FOR UPDATE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
    },
}


def as_json(value: object) -> str:
    """Return a value as JSON text, as every JSON column and parameter is written."""
    return _encode(value).decode()
