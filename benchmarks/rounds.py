"""Rounds: the sides of a benchmark in turn, A/B/A/B, and what came of it.

A neighbour that wakes up for a minute then disturbs both sides alike. Called by every
benchmark; next: report.py.
"""

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.machine import calibrate

Sample = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """One figure of a benchmark: its name, its unit, which way is better, and the goal in words."""

    key: str
    title: str
    unit: str = ""
    more: bool = False
    goal: str = ""


@dataclass
class Result:
    """Everything a benchmark measured: side -> one sample per round."""

    name: str
    title: str
    measures: list[Measure]
    samples: dict[str, list[Sample]]
    notes: list[str] = field(default_factory=list)

    def values(self, side: str, key: str) -> list[float]:
        """Return a figure of a side, round by round."""
        return [sample[key] for sample in self.samples[side] if key in sample]

    def median(self, side: str, key: str) -> float | None:
        """Return the median of a figure of a side, or None where it was not measured."""
        values = self.values(side, key)
        return statistics.median(values) if values else None


def alternate(sides: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Measure each side in turn, so many times; the machine is calibrated before each."""
    samples: dict[str, list[Sample]] = {side: [] for side in sides}
    for number in range(rounds):
        for side, measure in sides.items():
            print(f"  round {number + 1} of {rounds}: {side}", file=sys.stderr, flush=True)
            quiet = calibrate()
            samples[side].append({**measure(), "cal": quiet})
    return samples
