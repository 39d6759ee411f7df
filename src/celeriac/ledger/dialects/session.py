"""One connection to Postgres, spoken to through libpq itself.

`postgres.py` keeps one for each connection that it writes with. So a statement costs this process 35 µs
of CPU; by a cursor of psycopg, which waits in Python, it costs 90, and a commit of a worker has ten of them. What
nobody reads the answer of waits for the next statement and is sent together with it (libpq's pipeline): a submit goes
to the server and back twice instead of six times.
"""

import select
from collections import namedtuple
from collections.abc import Sequence
from functools import cache
from itertools import count, islice
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from celeriac.ledger.dialects.dialect import Rows

_BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED"
_TYPES = {int: 20, float: 701}  # bigint and double precision; of all else the statement says what it is
# What may be wrong with a prepared statement: a migration has changed its tables, or somebody has dropped it.
_VOID = {"0A000", "26000"}
# The sequence is looked up once: OFFSET keeps the planner from doing that for each row.
_NEXT_KEYS = (
    "SELECT nextval(name) AS key"
    " FROM (SELECT CAST(pg_get_serial_sequence($1, $2) AS regclass) AS name OFFSET 0) AS found, generate_series(1, $3)"
)
# CSV with a quote that is in hardly any text. All that is NULL in every row is left out.
_COPY = "COPY {} ({}) FROM STDIN (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"
_AT_ONCE = 100


class Session:
    """Executes statements in their order; each is prepared when it is first used."""

    def __init__(self, driver: "psycopg.Connection[Any]") -> None:
        self._driver = driver
        self._pgconn = driver.pgconn
        self._encoding = driver.info.encoding
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._names = count()
        # What has not been sent: a prepared statement and its values, or one that is not prepared and None.
        self._waiting: list[tuple[bytes, list[Any] | None]] = []
        self._begun = self._asked = False
        self._readable, self._ready = select.poll(), select.poll()
        self._readable.register(self._pgconn.socket, select.POLLIN)
        self._ready.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)

    def begin(self) -> None:
        """Begin a transaction, with the first statement."""
        self._waiting, self._begun = [(_BEGIN, None)], False

    def commit(self) -> None:
        """Commit what has been done; raises what the server said when it could not, and has rolled back then."""
        if not self._begun and len(self._waiting) == 1:
            return
        self._waiting.append((b"COMMIT", None))
        try:
            self._send()
        except BaseException:
            if self._pgconn.transaction_status == TransactionStatus.INERROR:
                self._pgconn.exec_(b"ROLLBACK")
            raise

    def run(self, text: str, values: Sequence[Any]) -> Rows:
        """Execute a statement with its values for $1, $2 and so on."""
        self._put(text, values)
        return self._rows(self._send())

    def later(self, text: str, values: Sequence[Any]) -> None:
        """Execute a statement with the next one; what is wrong with it is raised there."""
        self._put(text, values)

    def flush(self) -> None:
        """Execute what waits."""
        if self._waiting:
            self._send()

    def load(self, table: str, rows: Sequence[dict[str, Any]], key: str) -> list[int] | None:
        """Add rows by COPY, which costs both sides half as much as an INSERT of so many.

        With `key` they are numbered by its sequence: returns the numbers, or None if one of them exists already.
        """
        columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
        fields = itemgetter(*columns)
        keys = [row.key for row in self.run(_NEXT_KEYS, [table, key, len(rows)])] if key else []
        lines = ("\x02".join(map(_field, fields(row))) for row in rows)
        if key:
            columns.append(key)
            lines = (f"{line}\x02{number}" for line, number in zip(lines, keys, strict=True))
        self.flush()
        self._checked(self._pgconn.exec_(b"SAVEPOINT load"))
        try:
            with self._driver.cursor().copy(_COPY.format(table, ", ".join(columns))) as copy:
                while some := "\n".join(islice(lines, _AT_ONCE)):  # the server reads while we go on
                    copy.write(some + "\n")
        except psycopg.errors.UniqueViolation:
            self._checked(self._pgconn.exec_(b"ROLLBACK TO load"))
            return None
        return keys

    def _put(self, text: str, values: Sequence[Any]) -> None:
        """Let a statement wait to be sent."""
        types = tuple([_TYPES.get(type(value), 0) for value in values])
        name = self._prepared.get((text, types)) or self._prepare(text, types)
        self._waiting.append((name, [self._told(value) for value in values]))

    def _send(self) -> PGresult:
        """Send all that waits; return what the last of it answered. Raises what the first said that failed."""
        calls, self._waiting, self._begun = self._waiting, [], True
        if len(calls) == 1:
            [(name, told)] = calls
            pgconn = self._pgconn
            return self._checked(pgconn.exec_(name) if told is None else pgconn.exec_prepared(name, told))
        try:
            results = self._exchange(calls)
        except psycopg.Error:
            self._driver.close()
            raise
        except BaseException:  # a signal
            self._give_up()
            raise
        for result in results:
            self._checked(result)
        return results[-1]

    def _give_up(self) -> None:
        """Have the server stop, and read what it says, so that nobody takes it for an answer to something else."""
        try:
            if not self._asked:
                raise psycopg.OperationalError("the statements were sent in part")
            self._pgconn.get_cancel().cancel()
            self._answers()
        except psycopg.Error:
            self._driver.close()

    def _exchange(self, calls: Sequence[tuple[bytes, list[Any] | None]]) -> list[PGresult]:
        pgconn, self._asked = self._pgconn, False
        pgconn.enter_pipeline_mode()
        for name, told in calls:
            if told is None:
                pgconn.send_query_params(name, None)
            else:
                pgconn.send_query_prepared(name, told)
        pgconn.pipeline_sync()
        self._asked = True
        return self._answers()

    def _answers(self) -> list[PGresult]:
        pgconn, results = self._pgconn, []
        while pgconn.flush():  # the server reads no further until its own answers have been read
            self._ready.poll()
            pgconn.consume_input()
        while True:
            while pgconn.is_busy():
                self._readable.poll()
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:  # behind the answers of each, and for ever once the server has gone
                if pgconn.status != ConnStatus.OK:
                    raise psycopg.OperationalError("the connection was lost")
            elif result.status == ExecStatus.PIPELINE_SYNC:
                break
            else:
                results.append(result)
        pgconn.exit_pipeline_mode()
        return results

    def _prepare(self, text: str, types: tuple[int, ...]) -> bytes:
        name = f"celeriac_{next(self._names)}".encode()
        self._checked(self._pgconn.prepare(name, text.encode(self._encoding), types))
        self._prepared[text, types] = name
        return name

    def _told(self, value: Any) -> bytes | None:
        if value is None:
            return None
        if isinstance(value, str):
            if "\0" in value:  # libpq would take what stands before it
                raise psycopg.DataError("A text for Postgres cannot contain NUL.")
            return value.encode(self._encoding)
        return b"%a" % value

    def _checked(self, result: PGresult) -> PGresult:
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            return result
        error = error_from_result(result, self._encoding)
        if error.sqlstate is None:  # libpq's own word: the connection has gone
            raise psycopg.OperationalError(str(error))
        if error.sqlstate in _VOID:
            self._prepared.clear()
        raise error

    def _rows(self, result: PGresult) -> Rows:
        count = result.command_tuples or 0
        if result.status == ExecStatus.COMMAND_OK:
            return Rows([], count)
        row = _row_type(tuple(result.fname(column) for column in range(result.nfields)))
        loader = Transformer(self._driver)
        loader.set_pgresult(result)
        return Rows(loader.load_rows(0, result.ntuples, row._make), count)


def _field(value: Any) -> str:
    if value is None:
        return ""
    return "\x01" + value.replace("\x01", "\x01\x01") + "\x01" if isinstance(value, str) else repr(value)


@cache
def _row_type(names: tuple[bytes, ...]) -> Any:
    return namedtuple("Row", [name.decode() for name in names])
