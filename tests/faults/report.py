"""What came of a run, for people and as JSON. Made by run.py; docs/guarantees.md quotes it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Report:
    """What came of a run."""

    setup: str
    seed: int
    seconds: float = 0
    kills: int = 0  # moments at which a process was ended without warning
    killed: dict[str, int] = field(default_factory=dict)  # by kind of process and way
    failpoints: dict[str, int] = field(default_factory=dict)  # by place: processes that died there
    errors_injected: dict[str, int] = field(default_factory=dict)  # by place: calls that seemed to fail
    refused_to_start: int = 0  # processes that met no ledger, or lost their children, as they began, and said so
    troubles: dict[str, int] = field(default_factory=dict)  # survived, by name
    jobs_in: int = 0
    acknowledged: int = 0
    ended: int = 0
    lost: int = 0
    two_ends: int = 0
    ran_twice: int = 0
    ran_twice_after_a_loss: int = 0  # those of them whose running attempt had been lost with its process
    ran_twice_after_an_outage: int = 0  # those whose worker could not renew its lease, for the ledger was in trouble
    recovery_seconds: dict[str, float] = field(default_factory=dict)  # by trouble: the worst
    rerun_p50_seconds: float = 0  # a worker is killed, or frozen, until its jobs are claimed again
    rerun_p99_seconds: float = 0
    drain_seconds: float = 0
    outages: list[tuple[float, float]] = field(default_factory=list)  # of the ledger: from, until
    violations: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return it for people."""
        figures = {name: value for name, value in asdict(self).items() if not isinstance(value, (dict, list))}
        told = [f"{name.replace('_', ' '):20} {value}" for name, value in figures.items()]
        for name in ("killed", "failpoints", "errors_injected", "troubles", "recovery_seconds"):
            told += [f"{name}:", *(f"    {key:64} {value}" for key, value in sorted(getattr(self, name).items()))]
        return "\n".join([*told, f"violations: {len(self.violations)}", *self.violations[:40]])


def write(report: Report, path: Path) -> None:
    """Add a report to those in a file, in place of one of the same set-up."""
    others = [each for each in json.loads(path.read_text()) if each["setup"] != report.setup] if path.exists() else []
    path.write_text(json.dumps([*others, asdict(report)], indent=1))
