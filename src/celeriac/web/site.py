"""The site: what one web process holds while it runs.

The ledger, the group that commits the moves of all requests together, the hub that wakes
who waits, the tasks that may be submitted. Handlers find it with `site(request)`.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from celeriac.access import Principal
from celeriac.app import Celeriac, Tasks, connect
from celeriac.instance import publisher_of
from celeriac.ledger import ORDER, Group, Ledger, Move, batches, migrations, submit
from celeriac.settings import Settings
from celeriac.stream import Hub
from celeriac.web.metrics import Metrics
from celeriac.web.waves import Waves

# Python hands the interpreter over every 5 ms by default, which is how long a commit's thread would wait for
# the event loop. Half a millisecond costs nothing measurable and keeps both at work.
SWITCH_SECONDS = 0.0005


class Site:
    """Opened by the application's lifespan; `start` and `stop` run on its event loop."""

    ledger: Ledger
    group: Group
    hub: Hub
    _waves: Waves

    def __init__(self, settings: Settings, app: Celeriac) -> None:
        self.settings = settings
        self.tasks = Tasks(app, settings.redact)
        self.metrics = Metrics()
        self.stopping = False  # whether the process is about to end
        self.checked = False  # whether the ledger is known to be of this version

    async def start(self) -> None:
        """Open the ledger, refuse one of another version, begin to commit and to listen."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self.ledger = connect(self.settings)
        if not self.checked:
            await asyncio.to_thread(migrations.check, self.ledger)
        loop = asyncio.get_running_loop()

        def deliver(run: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(run)

        self.group = Group(self.ledger, ORDER, deliver=deliver)
        self._waves = Waves(self.group)
        self.hub = Hub(self.ledger, self.settings.announcements_url)
        self.hub.start()
        if publisher := publisher_of(self.ledger):
            publisher.fill({})  # connects, so that readiness knows
        self.metrics.start()

    async def stop(self) -> None:
        """Wake who waits, commit what was handed over, end the thread."""
        self.metrics.stop()
        await self.hub.stop()
        await asyncio.to_thread(self.group.stop)

    async def do(self, move: Move[Any, Any], item: Any) -> Any:
        """Make a move together with those of other requests; return its answer after the commit or raise its error."""
        if move in (submit, batches.submit_batch):
            self._admit()
        begun = time.perf_counter()
        answer = await self._waves.add(move, item)
        self.metrics.moves[move.__name__] += 1
        self.metrics.writes.add(time.perf_counter() - begun)
        return answer

    def _admit(self) -> None:
        """Refuse while too many jobs wait; whoever asks does not wait for the look. Raises BacklogFull."""
        if self.ledger.backlog.is_due():
            asyncio.get_running_loop().run_in_executor(None, self.ledger.backlog.look)
        self.ledger.backlog.refuse()


def site(request: Request) -> Site:
    """Return the site of the process that serves this request."""
    found: Site = request.app.state.site
    return found


def caller(request: Request) -> Principal:
    """Return on whose behalf this request is made; the route's guard has put it there."""
    principal: Principal = request.scope["principal"]
    return principal
