"""A Redis as a broker: what may lose messages, refuse them, or let strangers in. Eleven things, each with its remedy.

Judges what broker/redis_facts.py has read; pure. Which broker it is, ours or an observed app's: broker.py.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from celeriac.cli.checks.cargo import Cargo

if TYPE_CHECKING:
    from celeriac.broker.redis_facts import RedisFacts  # which needs a package that not everybody has

Found = Iterator[tuple[str, str]]
OLDEST = (6, 2)
SLOW_SECONDS = 0.05
FULL, NEARLY_FULL = 0.95, 0.8
IDLE_SECONDS = 30
HIDDEN = "cannot be seen from here: the server does not tell its configuration"


def version(facts: "RedisFacts", cargo: Cargo) -> Found:
    """Ours needs BLMOVE."""
    told = str(facts.info.get("redis_version", "0"))
    if tuple(int(part) for part in told.split(".")[:2] if part.isdecimal()) < OLDEST:
        yield "error", f"Redis {told} is too old; 6.2 is the oldest that works"
    else:
        yield "fine", f"Redis {told}"


def eviction(facts: "RedisFacts", cargo: Cargo) -> Found:
    """One that evicts throws messages away when it is full."""
    policy, evicted = facts.info.get("maxmemory_policy"), int(facts.info.get("evicted_keys", 0))
    if policy not in (None, "noeviction"):
        yield "warning", f"maxmemory-policy is {policy}: when it is full it throws {cargo.name} away. Set noeviction"
    elif evicted:
        yield "warning", f"it has thrown away {evicted:,} keys since it started. Give it more memory"
    else:
        yield "fine", "nothing is evicted"


def persistence(facts: "RedisFacts", cargo: Cargo) -> Found:
    """One that writes nothing forgets all with a restart; one that cannot write takes nothing."""
    info, save = facts.info, facts.settings["save"]
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if info.get(name, "ok") != "ok"]
    if failed:
        yield "error", f"{failed[0]} is {info[failed[0]]}: it cannot write to its disk, and may refuse all. See its log"
    elif info.get("aof_enabled"):
        yield "fine", "it keeps an append-only file"
    elif save:
        yield "warning", f"it saves only now and then (save {save}): a crash loses {cargo.name}. Set appendonly yes"
    elif save is None:
        yield "warning", f"it keeps no append-only file: a crash may lose {cargo.name}. Set appendonly yes"
    else:
        yield "warning", f"it keeps nothing on disk: a restart loses {cargo.name}. Set appendonly yes"


def fsync(facts: "RedisFacts", cargo: Cargo) -> Found:
    """How much of the append-only file a power cut takes."""
    if facts.info.get("aof_enabled"):
        when = facts.settings["appendfsync"]
        if when == "no":
            yield "warning", f"appendfsync is no: a power cut loses {cargo.name} of half a minute. Set everysec"
        else:
            yield "fine", f"appendfsync is {when}" if when else f"appendfsync {HIDDEN}"


def memory(facts: "RedisFacts", cargo: Cargo) -> Found:
    """A full one takes nothing."""
    used, limit = int(facts.info.get("used_memory", 0)), int(facts.info.get("maxmemory", 0))
    most, of = (
        (limit, "maxmemory") if limit else (int(facts.info.get("total_system_memory", 0)), "the machine's memory")
    )
    share = used / most if most else 0
    told = f"{used / 2**20:,.0f} MiB in use, {share:.0%} of {of}"
    level = "error" if share >= FULL else "warning" if share >= NEARLY_FULL else "fine"
    yield (
        level,
        told if level == "fine" else f"{told}: a full Redis takes nothing. Give it more, or delete what it holds",
    )


def role(facts: "RedisFacts", cargo: Cargo) -> Found:
    """Only a master takes messages."""
    if facts.info.get("role", "master") != "master":
        master = f"{facts.info.get('master_host')}:{facts.info.get('master_port')}"
        yield "error", f"it is a replica and takes no writes. Name its master, {master}"
    else:
        yield "fine", f"it is the master of {facts.info.get('connected_slaves', 0)} replicas"


def cluster(facts: "RedisFacts", cargo: Cargo) -> Found:
    """Keys of one script must lie on one server."""
    mode = facts.info.get("redis_mode", "standalone")
    if mode == "standalone":
        yield "fine", "it is a server by itself"
    else:
        yield "error", f"it is a {mode}, which cannot be a broker. Name a server by itself"


def sharing(facts: "RedisFacts", cargo: Cargo) -> Found:
    """What others flush or fill takes the messages along."""
    others = [name for name in facts.info if name.startswith("db") and name[2:].isdecimal()]
    if facts.strange:
        more = f"{facts.strange:,} keys in this database are of something else"
        yield "warning", f"{more}: who flushes or fills it takes {cargo.name} along. Give the broker a Redis of its own"
    elif len(others) > 1:
        yield (
            "warning",
            f"{', '.join(others)} have keys: all share memory and speed. Give the broker a Redis of its own",
        )
    else:
        yield "fine", "nobody else keeps anything here"


def access(facts: "RedisFacts", cargo: Cargo) -> Found:
    """Whoever may write here may make jobs."""
    if not facts.open:
        yield "fine", "it asks for a password"
    elif facts.near and facts.settings["protected-mode"] != "no":
        yield "fine", "without a password it answers this machine only"
    else:
        yield "warning", "it lets in whoever reaches its port, and who writes there makes jobs. Set requirepass"


def idle(facts: "RedisFacts", cargo: Cargo) -> Found:
    """A server that closes idle connections makes workers come back all the time."""
    seconds = int(facts.settings["timeout"] or 0)
    if 0 < seconds < IDLE_SECONDS:
        yield "warning", f"it closes connections that are idle for {seconds} s, as a worker's are. Set timeout 0"
    else:
        yield "fine", "idle connections stay open"


def latency(facts: "RedisFacts", cargo: Cargo) -> Found:
    """How long an answer takes."""
    slow = facts.seconds > SLOW_SECONDS
    told = f"it answers in {1000 * facts.seconds:.1f} ms"
    yield ("warning", f"{told}. Put it nearer, or find out what keeps it busy") if slow else ("fine", told)


CHECKS: dict[str, Callable[["RedisFacts", Cargo], Found]] = {
    f"redis-{name}": check
    for name, check in {
        "version": version, "eviction": eviction, "persistence": persistence, "fsync": fsync, "memory": memory,
        "role": role, "cluster": cluster, "sharing": sharing, "access": access, "idle": idle, "latency": latency,
    }.items()
}  # fmt: skip
