"""Reports: the results as a table for people, or as JSON for programs.

A cell is the median of the rounds with the smallest and the largest in brackets; the last
columns say how many times better Celeriac (the first side) is than each other.
"""

import statistics
from typing import Any

from benchmarks.rounds import Measure, Result

CALIBRATION = Measure("cal", "quiet machine? fixed loop", "ms")


def table(result: Result) -> str:
    """Return a result as text."""
    sides = list(result.samples)
    head = ["", *sides, *(f"× {side}" for side in sides[1:]), "goal"]
    rows = [head, *(_row(result, measure) for measure in [*result.measures, CALIBRATION])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = [f"\n{result.name}: {result.title}", ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(3, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *(f"  - {note}" for note in result.notes)])


def _row(result: Result, measure: Measure) -> list[str]:
    ours, *others = result.samples
    cells = [f"{measure.title}{', ' if measure.unit else ''}{measure.unit}"]
    cells += [_cell(result.values(side, measure.key)) for side in result.samples]
    cells += [_ratio(result, measure, ours, other) for other in others]
    return [*cells, measure.goal]


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def _ratio(result: Result, measure: Measure, ours: str, other: str) -> str:
    mine, theirs = result.median(ours, measure.key), result.median(other, measure.key)
    if measure is CALIBRATION or not mine or not theirs:
        return ""
    return f"{mine / theirs if measure.more else theirs / mine:.2f}"


def number(value: float) -> str:
    """Return a number with three digits that matter, or all of a large one."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def document(results: list[Result], machine: list[str]) -> dict[str, Any]:
    """Return everything measured, for a program to read."""
    return {
        "machine": machine,
        "benchmarks": [{"name": result.name, "samples": result.samples, "notes": result.notes} for result in results],
    }
