"""SQL text with the few words that SQLite and Postgres spell differently.

A statement is written once. `{rows}` becomes a table of the rows of the parameter `rows`, so that a
whole batch is one statement, one round trip and one release of the GIL: Postgres reads it from
JSON, SQLite from bound values, which costs it half as much (15 instead of 32 µs for a row of `jobs`).
`{lock}` and `{skip_locked}` mean something on Postgres only; SQLite has one writer. Rows that
are locked together are locked in the order of their keys, so that two batches never wait for each other.
"""

import re
from functools import cache, cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import TextClause, text

_POSTGRES = {"text": "text", "int": "bigint", "real": "double precision"}
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
# More rows than this in one statement are JSON on SQLite, too: each number of rows is a statement to prepare.
SPREAD_MAX = 64
_encode = msgspec.json.Encoder().encode


class Sql:
    """A statement; the keyword arguments name the columns of `{rows}` with their types."""

    def __init__(self, template: str, **columns: str) -> None:
        self._template = template
        self._columns = columns
        # One column, or parameters beside the rows, are not worth the trouble.
        spreads = len(columns) > 1 and not _PARAMETER.search(template)
        self._values = itemgetter(*columns) if spreads else None
        self.text = cache(self._told)
        self.on = cache(self._on)
        self._spread = cache(self._spread_text)

    def bound(self, dialect: str, parameters: dict[str, Any]) -> tuple[str, Any]:
        """Return the statement and its parameters as the dialect's driver takes them."""
        rows = parameters.get("rows")
        if dialect == "sqlite" and self._values and isinstance(rows, list) and 0 < len(rows) <= SPREAD_MAX:
            return self._spread(len(rows)), list(chain.from_iterable(map(self._values, rows)))
        for name, value in parameters.items():
            if isinstance(value, (list, tuple)):
                parameters[name] = as_json(value)
        if dialect == "sqlite":
            return self.text(dialect), parameters
        text, names = self.numbered
        return text, [parameters[name] for name in names]

    @cached_property
    def numbered(self) -> tuple[str, list[str]]:
        """The statement with $1, $2 and so on as Postgres itself wants it, and the parameters' names in that order."""
        told = self._told("postgresql")
        names = list(dict.fromkeys(_PARAMETER.findall(told)))
        return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", told), names

    def _spread_text(self, count: int) -> str:
        """Return the statement for SQLite with so many rows of bound values."""
        columns = ", ".join(f"column{place} AS {name}" for place, name in enumerate(self._columns, 1))
        row = f"({', '.join('?' * len(self._columns))})"
        rows = f"(SELECT {columns} FROM (VALUES {', '.join([row] * count)})) AS v"
        return self._told("sqlite", rows)

    def _on(self, dialect: str) -> TextClause:
        """Return the statement for SQLAlchemy."""
        return text(self._told(dialect))

    def _told(self, dialect: str, rows: str = "") -> str:
        words = {"by": _IndexHint(dialect), "among": _Among(dialect), **_WORDS[dialect]}
        return self._template.format(rows=rows or self._rows(dialect), **words)

    def _rows(self, dialect: str) -> str:
        if dialect == "postgresql":
            columns = ", ".join(f"{name} {_POSTGRES[kind]}" for name, kind in self._columns.items())
            return f"json_to_recordset(CAST(:rows AS json)) AS v({columns})"
        columns = ", ".join(f"value->>'{name}' AS {name}" for name in self._columns)
        return f"(SELECT {columns} FROM json_each(:rows)) AS v"


class Insert(Sql):
    """Adds a batch of rows to a table; `suffix` holds a conflict clause or RETURNING."""

    def __init__(self, table: str, suffix: str = "", **columns: str) -> None:
        names = ", ".join(f"v.{name}" for name in columns)
        template = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {names} FROM {{rows}} WHERE true {suffix}"
        super().__init__(template, **columns)
        self.table = table


class _IndexHint:
    """`{by[jobs_waiting]}`: SQLite, which keeps no statistics here, is told which index serves a hot statement."""

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
# `{first_of_group}`: as many as a group may give (moves/claim.py); where several claim at once, others than theirs.
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
        "json_list": "json_group_array",
        "first_of_group": "ORDER BY n.owner, n.key LIMIT :most",
    },
    "postgresql": {
        "by_key": "",
        "each": "SELECT json_array_elements_text(CAST(:each AS json))",
        "each_int": "SELECT CAST(x AS bigint) FROM json_array_elements_text(CAST(:each AS json)) AS x",
        "lock": "ORDER BY jobs.key FOR UPDATE OF jobs",
        "lock_row": "FOR UPDATE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
        "once": "= ANY (ARRAY(",
        "end": "))",
        "for_each": "LATERAL (",
        "end_each": ")",
        "json_list": "json_agg",
        "first_of_group": "ORDER BY n.owner, n.key LIMIT v.most FOR UPDATE SKIP LOCKED",
    },
}


def as_json(value: object) -> str:
    """Return a value as JSON text, as every JSON column and parameter is written."""
    return _encode(value).decode()
