"""Health: is the process alive, and can it do its work.

`/healthz` needs no database. `/readyz` writes to the ledger and takes it back, by the same way
a job is written: a full disk or a database that is gone is found before a client finds it. A process that
is told to stop is not ready from that moment on, while it still serves.
"""

import asyncio
import contextlib

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from celeriac import clock
from celeriac.access import Role
from celeriac.errors import CeleriacError, LedgerUnavailable, Stopping
from celeriac.instance import publisher_of
from celeriac.ledger import Ledger, keys
from celeriac.web.site import Site

REMEMBER_SECONDS = 1.0
PATIENCE_SECONDS = 5.0


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes for supervisors."""
    readiness = Readiness(site)
    return [Route("/healthz", _alive, methods=["GET"]), Route("/readyz", readiness.answer, methods=["GET"])]


async def _alive(request: Request) -> Response:
    return JSONResponse({"status": "alive"})


class Readiness:
    """Tries the ledger at most once a second, however many ask."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._until = 0.0
        self._trying: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Response:
        """Say ready, or raise what is wrong."""
        if self._site.stopping:
            raise Stopping("This process was told to stop. It serves a moment longer; send requests to another one.")
        if self._trying is None or (self._trying.done() and self._until <= clock.monotonic()):
            self._until = clock.monotonic() + REMEMBER_SECONDS
            self._trying = asyncio.create_task(self._try())
            self._trying.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait_for(asyncio.shield(self._trying), PATIENCE_SECONDS)
        except TimeoutError:
            raise LedgerUnavailable(f"The ledger did not take a write within {PATIENCE_SECONDS:g} s.") from None
        publisher = publisher_of(self._site.ledger)
        # Submits are accepted and run without the broker, only a little later.
        degraded = ["broker"] if publisher is not None and publisher.down else []
        return JSONResponse({"status": "ready", **({"degraded": degraded} if degraded else {})})

    async def _try(self) -> None:
        await asyncio.to_thread(_write, self._site.ledger)


def _write(ledger: Ledger) -> None:
    """Write something and remove it again: a login ticket that nobody ever sees."""
    try:
        ticket = keys.create_ticket(ledger, "readyz", Role.VIEWER, seconds=60)
        with contextlib.suppress(CeleriacError):
            keys.use_ticket(ledger, ticket)
    except CeleriacError:
        raise
    except Exception as error:
        raise LedgerUnavailable(f"The ledger cannot be written: {error}.") from error
