"""`python -m faults`: full runs on the set-ups that are asked for, one after another; their reports as text and JSON.

For looking into a run: it can leave ledgers and logs behind. Ends with 1 when anything did not hold.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from nursery import Nursery

from faults.report import write
from faults.run import run
from faults.setups import SETUPS


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    asked.add_argument("--setup", action="append", choices=SETUPS, help="one of the set-ups (default: each)")
    asked.add_argument("--minutes", type=float, default=10, help="how long on each set-up (default: 10)")
    asked.add_argument("--seed", type=int, default=1, help="seed of the sequence of troubles (default: 1)")
    asked.add_argument("--only", action="append", default=[], help="only the trouble of this name")
    asked.add_argument("--every", type=float, default=0.8, help="seconds between two kills (default: 0.8)")
    asked.add_argument("--json", type=Path, help="a file for the reports")
    asked.add_argument("--home", type=Path, help="where to leave ledgers and logs (default: nowhere)")
    given = asked.parse_args()
    nursery, reports = Nursery(), []
    with tempfile.TemporaryDirectory(prefix="celeriac-soak-") as scratch:
        for name in given.setup or SETUPS:
            home = (given.home or Path(scratch)) / name
            home.parent.mkdir(parents=True, exist_ok=True)
            report = run(
                name, home, given.minutes * 60, given.seed, nursery, every=given.every, only=tuple(given.only)
            )  # fmt: skip
            print(report.text(), flush=True)
            reports.append(report)
            if given.json:
                write(report, given.json)
    nursery.close()
    return int(any(report.violations for report in reports))


if __name__ == "__main__":
    sys.exit(main())
