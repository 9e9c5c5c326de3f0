# SPDX-License-Identifier: Apache-2.0
"""Set up what tests of drivers talk to and cannot run in `.venv`: the simulated Franka controller.

Its environment lies in `build/peers/franka`. Finished steps are skipped, as in `bootstrap.py`.
"""

from __future__ import annotations

import shutil
import sys

import bootstrap

FRANKA = bootstrap.ROOT / "build" / "peers" / "franka"
REQUIREMENTS = bootstrap.ROOT / "tests" / "peers" / "franka-requirements.txt"


def main() -> int:
    try:
        with bootstrap.one_at_a_time():
            if not (FRANKA / "bin" / "python").exists():
                (bootstrap.STAMPS / "peer-franka").unlink(missing_ok=True)
            key = bootstrap.digest([REQUIREMENTS])
            bootstrap.step("peer-franka", "simulated Franka controller for tests", key, install)
    except bootstrap.SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; the next call completes it", file=sys.stderr)
        return 130
    return 0


def install() -> None:
    shutil.rmtree(FRANKA, ignore_errors=True)
    FRANKA.parent.mkdir(parents=True, exist_ok=True)
    run = bootstrap.run
    run([sys.executable, "-m", "venv", str(FRANKA)], "python3.11 cannot make a virtual environment")
    pip = [str(FRANKA / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    run(
        [*pip, "--no-deps", "--requirement", str(REQUIREMENTS)],
        "pip could not install tests/peers/franka-requirements.txt",
    )


if __name__ == "__main__":
    sys.exit(main())
