"""Hints: what a node does with what the broker sends it.

A hint makes the node claim the best jobs it has room for, whichever they are. As long as its claims come up short it
acknowledges hints as they come, so that the next need not wait for the claim that answers this one. Once a claim was
full there may be more than it takes: it sees to it that a hint lies there for others, keeps one of each queue until
a claim comes up short, so that no other comes to it, and claims by itself as slots become free. Strangers' messages
are adopted, and what nobody can read is buried, both before they are acknowledged. Next: broker/consumer.py.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac import broker
from celeriac.app.sender import submission_of
from celeriac.broker.letters import Hint, Letter, Stranger, Unreadable, as_text, is_hint, meaning
from celeriac.instance import publisher_of
from celeriac.jobs import Claimed
from celeriac.ledger import submit
from celeriac.ledger.dead_letters import DeadLetter, bury

if TYPE_CHECKING:
    from celeriac.worker.node import Node

log = logging.getLogger(__name__)

# Where so many hints that were answered together were out of date there are many: then more are taken at once.
MANY, MORE = 4, 100
# A node whose claims are not answered (it may be cut off from the ledger) takes so many and leaves the rest to others.
AHEAD = 16
# A hint that is kept longer goes round: another node may have room, and RabbitMQ ends who keeps one half an hour.
KEEP_SECONDS = 60.0

Kept = tuple[Letter, str | None]  # a hint, and the job it names


class Hints:
    """A node's side of the broker. Its methods run in the hub's thread unless they say otherwise."""

    def __init__(self, node: "Node", app: Any) -> None:
        self._node = node
        self._app = app
        self._most_bytes = node.settings.max_body_bytes
        self._kept: list[Kept] = []
        self._ahead = self._caught_up = 0  # hints acknowledged as they came (the consumer counts), and answered
        self._adopting = 0
        self._publisher = publisher_of(node.ledger)
        url = node.settings.broker_url
        self._consumer = broker.Consumer(partial(broker.receiver, url), self._take) if url else None

    @property
    def up(self) -> bool:
        """Whether the broker wakes this node."""
        return self._consumer is not None and self._consumer.up

    def follow(self, queues: Iterable[str]) -> None:
        """Receive from these queues and no others."""
        if self._consumer is not None:
            self._consumer.follow(queues)

    def close(self) -> None:
        """Receive no more; what is kept goes to others."""
        if self._consumer is not None:
            self._consumer.close()
            self.unanswered()

    def kept(self) -> list[Kept]:
        """Return the hints that a claim which is sent now answers."""
        return self._kept.copy()

    def answered(self, hints: list[Kept], claimed: list[Claimed]) -> None:
        """Acknowledge hints: a claim that was begun with them at hand found no more than this."""
        if not hints or self._consumer is None:
            return
        gone = {id(letter) for letter, _ in hints}
        self._forget([letter for letter, _ in self._kept if id(letter) in gone])
        known = {job.id for job in (*claimed, *self._node.held.values())}
        self._consumer.settle([letter for letter, job in hints if job is None or job in known])
        for letter, job in hints:
            if job is not None and job not in known:
                self._bury(letter, f"The ledger has no job {job[:255]}. Was it restored from an older backup?", job)
        queues = {job.queue for job in claimed}
        for queue, number in Counter(letter.queue for letter, _ in hints).items():
            if number >= MANY and queue not in queues:
                self._consumer.more(queue, MORE)

    def unanswered(self) -> None:
        """Let others hear of what those hints told of that were acknowledged as they came: more may be left."""
        gone = [letter for letter, _ in self._kept if letter.settled]
        self._forget(gone)
        self._leave(gone)

    def _forget(self, letters: list[Letter]) -> None:
        self._caught_up += sum(letter.settled for letter in letters)
        gone = set(map(id, letters))
        self._kept = [kept for kept in self._kept if id(kept[0]) not in gone]

    def _leave(self, letters: Iterable[Letter]) -> None:
        """See to it that a hint lies there for others (any thread)."""
        queues = {letter.queue: 1 for letter in letters}
        if queues and self._publisher is not None:
            self._publisher.fill(queues)

    def tick(self) -> bool:
        """Let hints go round that are kept for long; say whether there are any that a claim should answer."""
        before = time.monotonic() - KEEP_SECONDS
        old = [letter for letter, _ in self._kept if letter.at < before]
        if old and self._consumer is not None:
            self._forget(old)
            self._consumer.put_back(old)
            self._leave(letter for letter in old if letter.settled)
        return bool(self._kept)

    def _take(self, letters: list[Letter]) -> list[Letter]:
        """Hand over what arrived; return the hints to acknowledge at once (the consumer's thread)."""
        hints = [letter for letter in letters if is_hint(letter.body)]
        node, full = self._node, self._node.room() <= 0
        at_once = [] if full or node.sated or node.stopping or self._ahead - self._caught_up >= AHEAD else hints
        self._ahead += len(at_once)
        for letter in at_once:
            letter.settled = True
        node.inbox.put(partial(self._taken, letters))
        if full:  # somebody else may have room
            self._leave(hints)
        return at_once

    def _taken(self, letters: list[Letter]) -> None:
        if self._node.stopping:  # they go to others
            self._leave(letter for letter in letters if letter.settled)
            return
        for letter in letters:
            try:
                said = meaning(letter, self._most_bytes)
                if isinstance(said, Hint):
                    self._kept.append((letter, said.job))
                else:
                    self._adopt(letter, said)
            except Unreadable as error:
                self._caught_up += letter.settled
                self._bury(letter, str(error))
        self._node.fetch()

    def _adopt(self, letter: Letter, stranger: Stranger) -> None:
        try:
            submission = submission_of(self._app, *stranger, letter.queue)
        except Exception as error:  # what its task's own code makes of its arguments, for one
            raise Unreadable(f"It cannot become a job: {type(error).__name__}: {error}") from error
        if not self._adopting and self._consumer is not None:  # where one is, there are many
            self._consumer.more(letter.queue, MORE)
        self._adopting += 1
        self._node.group.add(submit, replace(submission, existing_ok=True), partial(self._adopted, letter))

    def _adopted(self, letter: Letter, answer: Any) -> None:
        self._adopting -= 1
        if isinstance(answer, Exception):
            self._bury(letter, f"It cannot become a job: {answer}")
        elif self._consumer is not None:
            self._consumer.settle([letter])

    def _bury(self, letter: Letter, reason: str, job: str | None = None) -> None:
        if job is None:
            log.warning("A message in the queue %s is put with the dead letters: %s", letter.queue, reason)
        dead = DeadLetter(letter.queue, reason, as_text(letter), job)
        self._node.group.add(bury, dead, partial(self._buried, letter))

    def _buried(self, letter: Letter, answer: Exception | None) -> None:
        if answer is not None:
            log.error("A message in the queue %s cannot be kept as a dead letter: %s", letter.queue, answer)
        if self._consumer is not None:
            self._consumer.settle([letter])
