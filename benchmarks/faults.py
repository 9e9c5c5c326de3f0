# SPDX-License-Identifier: Apache-2.0
"""Injects every fault of the matrix and writes the table; `make faults`.

What a busy machine prolongs is measured 3 times, 10 times in the full form, and the worst counts.
The table goes to faults.md in the run's folder, all figures to report.json beside it. The exit code
is 1 where a row or another test failed, or where no test tried a row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import harness
from fault_table import ROWS, Figure, Line, Outcome, lines, load, markdown, merged
from harness import Target
from twinloop.reporting.machine import commit, machine

QUICK, FULL = 3, 10


def inject(
    folder: Path, repetitions: int, rows: list[int]
) -> tuple[list[Figure], list[Outcome], list[str]]:
    """Run the tests; returns what they measured, how each of a row ended, and which failed."""
    figures = folder / "figures.json"
    command = [sys.executable, "-m", "pytest", "tests/faults", "-v", "--no-header"]
    command += [f"--fault-repetitions={repetitions}", f"--fault-figures={figures}"]
    if rows:
        command += [f"--fault-rows={','.join(map(str, rows))}"]
    # Repetitions take as long as they take; each wait in a test has its own end.
    command += ["-o", "timeout=1800"]
    failed: list[str] = []
    with open(folder / "pytest.log", "w") as log:
        running = subprocess.Popen(
            command,
            cwd=harness.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            log.write(line)
            if line.startswith(("FAILED ", "ERROR ")):
                failed.append(line.split()[1])
        if running.wait() and not failed:
            failed.append(f"pytest ended with {running.returncode}")
    if not figures.is_file():
        return [], [], failed
    return *load(json.loads(figures.read_text(encoding="utf-8"))), failed


def targets(figures: list[Figure]) -> list[Target]:
    """Return the bounds of all figures with the worst that was measured."""
    made = []
    for one in merged(figures):
        name = f"{one.row:02} {one.entry}: {one.what}" + (f", {one.unit}" if one.unit else "")
        values = one.values or (None,)
        if one.at_most is not None:
            made.append(Target(name, max(values), one.at_most, "<="))
        if one.at_least is not None and one.at_least != one.at_most:
            made.append(Target(name, min(values), one.at_least, ">="))
    return sorted(made, key=lambda one: one.name)


def text(table: list[Line], repetitions: int) -> str:
    """Return the page of a run."""
    about = machine()
    failed = [line for line in table if not line.holds]
    head = (
        f"# Fault matrix\n\nCommit `{(commit() or 'unknown')[:12]}` on {about['cpu']}, "
        f"{about['cores']} cores. Times are repeated up to {repetitions} times (n) and the worst "
        "counts; void ones, during which the machine itself stood still for 20 ms, are repeated. "
        f"{len(table) - len(failed)} of {len(table)} lines pass.\n\n"
    )
    return head + markdown(table)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[], choices=ROWS, metavar="ROW")
    arguments = parser.parse_args()
    if arguments.rows and arguments.full:
        parser.error("the full form is of all rows: --full goes without --rows")
    repetitions = FULL if arguments.full else QUICK
    folder = harness.start("faults", arguments.full, arguments.resume)
    figures, outcomes, failed = inject(folder, repetitions, arguments.rows)
    wanted = arguments.rows or list(ROWS)
    table = [line for line in lines(figures, outcomes) if line.row in wanted]
    (folder / "faults.md").write_text(text(table, repetitions), encoding="utf-8")
    found = {
        "repetitions": repetitions,
        "lines": len(table),
        "lines that pass": sum(line.holds for line in table),
        "lines that fail": [asdict(line) for line in table if not line.holds],
        "tests that fail": [{"test": test} for test in failed],
        "matrix": [asdict(line) for line in table],
        "values": [asdict(one) for one in merged(figures)],
        "tests": [asdict(one) for one in outcomes],
    }
    harness.finish("faults", folder, found, targets(figures), arguments.full)
    print(markdown(table))
    print(f"table  {folder / 'faults.md'}")
    for test in failed:
        print(f"failed  {test}")
    sys.exit(0 if all(line.holds for line in table) and not failed else 1)


if __name__ == "__main__":
    main()
