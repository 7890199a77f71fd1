"""Measures everything and prints one table: ``python -m benchmarks [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import cardinality, database, garbage, http, lag, report, scrape


def main() -> int:
    """Exit code 0 if every bar was met, 1 if one was missed or could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for a first look, not for a verdict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    options = parser.parse_args()

    rows = []
    for subject in (http, database, garbage, lag, scrape, cardinality):
        print(f"measuring: {subject.__name__.removeprefix('benchmarks.')}", file=sys.stderr, flush=True)
        rows += subject.rows(quick=options.quick)

    for name, value in (report.machine() | report.versions()).items():
        print(f"{name}: {value}")
    print(f"\n{report.table(rows)}\n")
    if options.json is not None:
        report.write_json(options.json, rows)
    missed = [row for row in rows if row.met is False]
    bars = [row for row in rows if row.bar]
    print(f"{len(bars) - len(missed)} of {len(bars)} bars met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
