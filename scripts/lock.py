# SPDX-License-Identifier: Apache-2.0
"""Print the lock: what pip installed in the running environment, one `name==version` a line.

Use after `pip install -r requirements.in` in a fresh environment:
    .venv/bin/pip install --no-deps unitree-legged-sdk  # names the tools that built it
    .venv/bin/python scripts/lock.py > requirements.lock
"""

import importlib.metadata
import re

# Wanted by colcon's and pip's metadata only; nothing here imports them.
LEFT_OUT = {
    "pip",
    "pytest-cov",
    "coverage",
    "pytest-repeat",
    "mujoco-studio",
}


def main() -> None:
    print("# Every package of the environment with its version; scripts/lock.py prints it.")
    lines = set()
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.name).lower()
        # The wheels carry further metadata of the ROS packages inside; those have no INSTALLER.
        if distribution.read_text("INSTALLER") is None or name in LEFT_OUT:
            continue
        lines.add(f"{name}=={distribution.version.partition('+')[0]}")
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
