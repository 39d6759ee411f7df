"""A RabbitMQ as a broker: what may lose messages, refuse them, or let strangers in. Ten things, each with its remedy.

Judges what broker/rabbitmq_facts.py has read; pure. Which broker it is, ours or an observed app's: broker.py.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from celeriac.broker.rabbitmq_facts import RabbitFacts
from celeriac.cli.checks.cargo import Cargo

Found = Iterator[tuple[str, str]]
OLDEST = (3, 10)
SLOW_SECONDS = 0.05
FEW_DELIVERIES = 5
CONSUMER_SECONDS = 1800  # what consumer_timeout is unless set
# Policies and arguments that make a queue forget messages.
FORGETS = ("message-ttl", "expires", "max-length", "max-length-bytes")


def version(facts: RabbitFacts, cargo: Cargo) -> Found:
    """Quorum queues have grown up with 3.10."""
    if _version(facts) < OLDEST:
        yield (
            "warning",
            f"RabbitMQ {facts.version or 'of an unknown version'} is old; 3.10 is the oldest that is tested",
        )
    else:
        yield "fine", f"RabbitMQ {facts.version}"


def management(facts: RabbitFacts, cargo: Cargo) -> Found:
    """AMQP alone does not tell everything."""
    if facts.nodes is None:
        yield "fine", f"limits, policies and nodes cannot be seen from here: {facts.hidden}"
    else:
        yield "fine", "the management API answers"


def queues(facts: RabbitFacts, cargo: Cargo) -> Found:
    """A quorum queue outlives the node it began on."""
    classic = [queue for queue, kind in facts.kinds.items() if kind == "classic"]
    other = {queue: kind for queue, kind in facts.kinds.items() if kind not in ("classic", "quorum", "missing")}
    for queue, kind in other.items():
        yield "warning", f"{queue}: {kind}"
    if classic:
        names = ", ".join(classic)
        yield "warning", f"no quorum queues: {names}. They fail with their node. Empty and delete them, to be made anew"
    elif not other:
        there = sum(kind == "quorum" for kind in facts.kinds.values())
        yield "fine", f"{there} quorum queues; {len(facts.kinds) - there} are made when first used"


def alarms(facts: RabbitFacts, cargo: Cargo) -> Found:
    """With an alarm it takes no messages."""
    raised = [
        f"{node.get('name')}: {name}"
        for node in facts.nodes or ()
        for name in ("mem_alarm", "disk_free_alarm")
        if node.get(name)
    ]
    if raised or not facts.confirms:
        why = ", ".join(raised) or "it confirms nothing, as under an alarm of memory or disk"
        yield "error", f"it takes no messages now ({why}). See `rabbitmq-diagnostics alarms`"
    else:
        yield "fine", "no alarm: it takes messages and confirms them"


def timeout(facts: RabbitFacts, cargo: Cargo) -> Found:
    """RabbitMQ closes the channel of a consumer that holds a message for longer, and gives it out again."""
    told = [int(value) / 1000 for value in _effective(facts, "consumer-timeout").values()]
    seconds = min(told, default=CONSUMER_SECONDS)
    where = "by policy" if told else "unless the server says otherwise, which cannot be seen from here"
    longest = cargo.longest
    if longest is None:
        short = seconds < 60
        yield (
            ("warning" if short else "fine"),
            (
                f"consumer_timeout is {seconds:g} s {where}; "
                + (
                    "workers come back all the time. Raise it"
                    if short
                    else "a job runs after its message is acknowledged"
                )
            ),
        )
    elif longest > seconds:
        limit = "without a time limit" if longest == float("inf") else f"with a time limit of {longest:g} s"
        yield "warning", f"consumer_timeout is {seconds:g} s {where}: a task {limit} is run again meanwhile. Raise it"
    else:
        yield "fine", f"consumer_timeout is {seconds:g} s {where}, longer than any task with late acknowledgement"


def deliveries(facts: RabbitFacts, cargo: Cargo) -> Found:
    """A quorum queue drops what comes back too often."""
    limits = _effective(facts, "delivery-limit")
    lost = {queue for queue in limits if queue not in _effective(facts, "dead-letter-exchange")}
    few = {queue: int(limit) for queue, limit in limits.items() if queue in lost and 0 <= int(limit) < FEW_DELIVERIES}
    for queue, limit in few.items():
        yield "warning", f"{queue} drops {cargo.name} after {limit} deliveries. Raise its delivery-limit"
    if not few:
        default = "20 unless set" if _version(facts) >= (4,) else "none unless set"
        yield "fine", f"delivery limits are wide enough ({default})"


def policies(facts: RabbitFacts, cargo: Cargo) -> Found:
    """A TTL or a bound of the length makes a queue forget."""
    forgets = [f"{queue}: {name} {value}" for name in FORGETS for queue, value in _effective(facts, name).items()]
    if forgets:
        yield "warning", f"queues forget {cargo.name} by policy or argument ({'; '.join(forgets)}). Except them from it"
    elif facts.nodes is not None:
        yield "fine", "no policy makes a queue forget"


def nodes(facts: RabbitFacts, cargo: Cargo) -> Found:
    """How many there are, and whether they see each other."""
    known = facts.nodes
    if known is None:
        return
    bad = [node["name"] for node in known if node.get("running") is False or node.get("partitions")]
    if bad:
        yield "warning", f"{', '.join(bad)} of {len(known)} nodes are down or cut off"
    elif len(known) == 1 and cargo.longest is not None:
        yield "warning", "it is a single node: while it is away nothing is sent or run"
    else:
        single = "a single node; while it is away the ledger carries the work"
        yield "fine", single if len(known) == 1 else f"{len(known)} nodes"


def user(facts: RabbitFacts, cargo: Cargo) -> Found:
    """Everybody knows guest's password."""
    if facts.user == "guest" and not facts.near:
        yield (
            "warning",
            "it is used as guest, whose password everybody knows. Make a user: rabbitmqctl add_user celeriac",
        )
    else:
        yield "fine", f"used as {facts.user}"


def permissions(facts: RabbitFacts, cargo: Cargo) -> Found:
    """A user must make, write and read the queues."""
    if facts.refused:
        grant = f"rabbitmqctl set_permissions -p VHOST {facts.user} '.*' '.*' '.*'"
        yield "warning", f"refused: {facts.refused}. Unless its own queues are allowed by name, type: {grant}"
    else:
        yield "fine", f"{facts.user} may make, write and read queues"


def latency(facts: RabbitFacts, cargo: Cargo) -> Found:
    """How long an answer takes."""
    slow = facts.seconds > SLOW_SECONDS
    told = f"it answers in {1000 * facts.seconds:.1f} ms"
    yield ("warning", f"{told}. Put it nearer, or find out what keeps it busy") if slow else ("fine", told)


def _version(facts: RabbitFacts) -> tuple[int, ...]:
    return tuple(int(part) for part in facts.version.split(".")[:2] if part.isdecimal())


def _effective(facts: RabbitFacts, name: str) -> dict[str, Any]:
    """Return what each of our queues has under this name, by policy or by argument."""
    found = {}
    for queue in facts.queues:
        if (own := queue.get("name")) in facts.kinds:
            matching = [policy for policy in facts.policies if re.search(policy["pattern"], own)]
            best: dict[str, Any] = max(matching, key=lambda policy: int(policy["priority"]), default={"definition": {}})
            value = (queue.get("arguments") or {}).get(f"x-{name}", best["definition"].get(name))
            if value is not None:
                found[own] = value
    return found


CHECKS: dict[str, Callable[[RabbitFacts, Cargo], Found]] = {
    f"rabbitmq-{name}": check
    for name, check in {
        "version": version, "management": management, "queues": queues, "alarms": alarms, "timeout": timeout,
        "deliveries": deliveries, "policies": policies, "nodes": nodes, "user": user, "permissions": permissions,
        "latency": latency,
    }.items()
}  # fmt: skip
