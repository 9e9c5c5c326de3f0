# SPDX-License-Identifier: Apache-2.0
"""Run all tests: those that wait for processes, and beside them, with less priority, the others.

    python scripts/run_tests.py [ARGUMENT ...]

With arguments for pytest it runs pytest with them, and nothing beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build" / "tests.log"
PYTEST = (sys.executable, "-m", "pytest")
WAITING = ("tests/nodes", "tests/system", "tests/faults")
COMPUTING = ("tests/unit", "tests/fuzz")
NICENESS = 10


def main() -> int:
    os.chdir(ROOT)
    if len(sys.argv) > 1:
        return subprocess.run([*PYTEST, *sys.argv[1:]], check=False).returncode
    LOG.parent.mkdir(exist_ok=True)
    print(f"beside these, {' and '.join(COMPUTING)} run; they are told of at the end", flush=True)
    with open(LOG, "w") as log:
        beside = subprocess.Popen(
            ["nice", "-n", str(NICENESS), *PYTEST, *COMPUTING],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            waiting = subprocess.run([*PYTEST, *WAITING], check=False).returncode
            computing = beside.wait()
        finally:
            beside.terminate()
    print(LOG.read_text())
    told = {0: "passed", 1: "failed"}
    for names, code in ((WAITING, waiting), (COMPUTING, computing)):
        print(f"{', '.join(names)}: {told.get(code, f'pytest ended with {code}')}")
    return waiting or computing


if __name__ == "__main__":
    sys.exit(main())
