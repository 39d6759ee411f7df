"""The tools of the fault suite do what they say: failpoints, the proxy, the private servers."""

import re
import socket
import struct
from pathlib import Path

import pytest
import servers
from conformance.moves import accept
from instance import instance
from proxy import Proxy, proxy

import celeriac
from celeriac import failpoints
from celeriac.access import SYSTEM
from celeriac.errors import LedgerUnavailable, LedgerUncertain
from celeriac.failpoints import NAMES
from celeriac.ledger import Asked, Ledger, cancel, read

SOURCE = Path(celeriac.__file__).parent


def test_each_failpoint_in_the_code_is_in_the_list_and_the_other_way_round():
    used = {name for path in SOURCE.rglob("*.py") for name in re.findall(r'failpoint\("([a-z-]+)"\)', path.read_text())}

    assert used == set(NAMES)


def test_a_failpoint_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="'before-lunch', which is no failpoint"):
        failpoints.arm("before-lunch:error:1")


@pytest.fixture
def armed():
    yield failpoints.arm
    failpoints.arm("")


def test_a_commit_that_fails_before_it_is_made_changes_nothing(ledger: Ledger, armed):
    id = accept(ledger)
    armed("before-commit:error:1")
    with pytest.raises(LedgerUnavailable):
        ledger.do(cancel, Asked(SYSTEM, id))

    assert read.job(ledger, SYSTEM, id).state == "queued"


def test_a_commit_whose_answer_is_lost_is_made_and_its_caller_knows_that_it_cannot_know(ledger: Ledger, armed):
    id = accept(ledger)
    armed("after-commit:error:1")
    with pytest.raises(LedgerUncertain):
        ledger.do(cancel, Asked(SYSTEM, id))

    assert read.job(ledger, SYSTEM, id).state == "cancelled"


def test_a_worker_that_cannot_enter_the_ledger_says_so_and_ends(tmp_path, nursery):
    with instance(tmp_path / "home", nursery=nursery) as house:
        process = house.worker("one", wait=False, CELERIAC_FAILPOINT="before-commit:error:1")

        assert process.wait(30) == 2
        assert house.log("one").splitlines()[-1].partition("CRITICAL")[2].startswith(" The ledger cannot be used now")
        assert "Traceback" not in house.log("one")


@pytest.fixture
def echo():
    """A proxy in front of a Redis, and what it answers to a PING through it."""
    servers.needs("redis-server")
    with proxy(servers.redis_server().port) as made:
        yield made


def _ask(made: Proxy, seconds: float = 10) -> bytes:
    with socket.create_connection(("127.0.0.1", made.port), seconds) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(100)


def test_a_proxy_is_a_wire_until_told_otherwise(echo: Proxy):
    assert _ask(echo) == b"+PONG\r\n"


def test_a_proxy_that_is_down_refuses_and_up_again_serves(echo: Proxy):
    echo.down()
    with pytest.raises(ConnectionRefusedError):
        _ask(echo)
    echo.heal()

    assert _ask(echo) == b"+PONG\r\n"


def test_a_reset_ends_the_connections_there_are(echo: Proxy):
    with socket.create_connection(("127.0.0.1", echo.port), 10) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100)
        echo.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_an_answer_is_cut_in_its_midst(echo: Proxy):
    echo.cut_after = 8  # the question and two bytes of the answer
    with pytest.raises(ConnectionResetError):
        _ask_to_the_end(echo)


def _ask_to_the_end(made: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", made.port), 10) as connection:
        connection.sendall(b"PING\r\n")
        while connection.recv(100):
            pass


def test_slices_come_one_byte_at_a_time_and_whole(echo: Proxy):
    echo.slice = 1
    with socket.create_connection(("127.0.0.1", echo.port), 10) as connection:
        connection.sendall(b"PING\r\n")
        with connection.makefile("rb") as answers:
            assert answers.readline() == b"+PONG\r\n"


@pytest.mark.skipif(not hasattr(socket, "AF_PACKET"), reason="only Linux drops packets for a socket")
def test_a_half_open_connection_is_not_even_acknowledged_and_heals(echo: Proxy):
    with socket.create_connection(("127.0.0.1", echo.port), 10) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100)
        echo.half_open()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"PING\r\n")
        unacknowledged = struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]
        assert unacknowledged == 1
        echo.heal()
        assert connection.recv(100) == b"+PONG\r\n"
