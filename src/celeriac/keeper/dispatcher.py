"""Sees to it that the broker holds a window of hints for each queue, as long as so many jobs wait.

It looks at how much there is and not at what happened, so whatever the broker lost, or nobody ever sent, is sent
again. When nothing of a queue was claimed since the last look it sends only a few: its workers may not take what
waits (an unknown task, a rate limit), and a window of hints would only go round between them.
"""

from celeriac.broker import Publisher
from celeriac.keeper.leader import Leader
from celeriac.ledger import counts, queues
from celeriac.states import State

LOOK_SECONDS = 1.0
FEW = 5
WAITS = (State.QUEUED, State.SCHEDULED, State.RETRYING)


class Dispatcher:
    """The duty of topping the broker up."""

    def __init__(self, leader: Leader, publisher: Publisher, window: int) -> None:
        self._leader = leader
        self._publisher = publisher
        self._window = window
        self._moved: dict[str, int] = {}  # how many jobs of each queue did not wait, at the last look

    def tick(self) -> float:
        """Say how many hints should lie in each queue; return the seconds until the next look."""
        ledger = self._leader.ledger
        before, self._moved, queued = self._moved, {}, set()
        with ledger.reading() as connection:
            for (state, queue, _), jobs in counts.all_counts(connection).items():
                self._moved[queue] = self._moved.get(queue, 0) + (0 if state in WAITS else jobs)
                if state == State.QUEUED:
                    queued.add(queue)
        levels = {
            queue: min(waiting, FEW) if before.get(queue) == self._moved[queue] else waiting
            for queue, waiting in queues.waiting(ledger, sorted(queued), self._window).items()
            if waiting
        }
        self._publisher.fill(levels, tidy=True)
        return LOOK_SECONDS
