"""`python -m benchmarks [name …] [--quick] [--json]`: run benchmarks and print what they measured."""

import argparse
import json
import sys
from importlib import import_module

from benchmarks import machine, report
from benchmarks.rounds import Result

NAMES = ("submits", "latency", "cpu", "postgres", "brokers", "start", "crowd", "large", "lists", "batches", "strain")


def main() -> None:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Celeriac side by side with its baselines.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(NAMES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: for a first look only")
    parser.add_argument("--jobs", type=int, metavar="N", help="lists: how many jobs the ledger holds")
    parser.add_argument("--database", metavar="URL", help="lists, batches: the database to fill")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON instead of tables")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    described = machine.describe()
    if not asked.json:
        print("\n".join(described), flush=True)
    results = []
    for name in asked.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        more = {"jobs": asked.jobs, "database": asked.database} if name == "lists" else {}
        more |= {"database": asked.database} if name == "batches" else {}
        result: Result = import_module(f"benchmarks.{name}").run(asked.quick, **more)
        results.append(result)
        if not asked.json:
            print(report.table(result), flush=True)
    if asked.json:
        print(json.dumps(report.document(results, described), indent=1))


main()
