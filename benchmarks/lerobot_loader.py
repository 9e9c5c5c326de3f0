# SPDX-License-Identifier: Apache-2.0
"""Bags that were exported as a data set, read by LeRobot's own loader and compared with the bags.

LeRobot wants other versions of torch than this project, so it is installed in an environment of its
own, in runs/lerobot (some gigabytes); --python names one that has it already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import Target
from offline import TASK, make_bags
from twinloop.bags import lerobot
from twinloop.bags.episodes import episodes
from twinloop.bags.read import complete_bags
from twinloop.contract import load as load_contract
from twinloop.learning.episode import Episode

LEROBOT = "lerobot==0.4.4"
_HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--python", type=Path, help="of an environment with LeRobot")
    arguments = parser.parse_args()
    folder = harness.start("lerobot_loader", arguments.full, arguments.resume)
    python = arguments.python or installed(harness.RUNS / "lerobot")
    make_bags(folder / "bags", 20 if arguments.full else 2)
    bags = complete_bags(folder / "bags")
    contract = load_contract(TASK)
    recorded = [one for path in bags for one in episodes(path, contract)]
    if not (folder / "dataset").exists():
        lerobot.export(bags, folder / "dataset")
    found = read(python, folder / "dataset", folder / "read.npz")
    figures, targets = compared(found, recorded)
    harness.finish("lerobot_loader", folder, figures, targets, arguments.full)


def installed(place: Path) -> Path:
    """Return the interpreter of an environment with LeRobot, which is made if missing."""
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", LEROBOT], check=True)
    return python


def read(python: Path, dataset: Path, out: Path) -> dict[str, Any]:
    """Read a data set in another environment, which asks nothing of the network."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [python, _HERE / "lerobot_reader.py", dataset, out],
        env={**alone, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out.parent / "cache")},
        check=True,
        stdout=sys.stderr,
    )
    with np.load(out, allow_pickle=False) as file:
        return dict(file)


def compared(found: dict[str, Any], recorded: list[Episode]) -> tuple[dict[str, Any], list[Target]]:
    """Return what was read, and how far it is from what was recorded, in the bags' own order."""
    states = np.concatenate([one.observations[:-1] for one in recorded]).astype(np.float32)
    actions = np.concatenate([one.actions for one in recorded]).astype(np.float32)
    numbers = np.repeat(np.arange(len(recorded)), [len(one) for one in recorded])
    is_last = np.append(numbers[1:] != numbers[:-1], True)
    following = np.concatenate([actions[1:], actions[-1:]])
    following[is_last] = actions[is_last]  # LeRobot repeats the last one, and says so
    figures = {
        "task": TASK,
        "lerobot": str(found["lerobot"]),
        "its_torch": str(found["torch"]),
        "episodes": int(found["episodes"]),
        "frames": len(found["state"]),
        "fps": float(found["fps"]),
        "texts_of_tasks": sorted(set(found["task"].tolist())),
        "state_differs_by": float(np.abs(found["state"] - states).max()),
        "action_differs_by": float(np.abs(found["action"] - actions).max()),
        "following_action_differs_by": float(np.abs(found["following"][:, 1] - following).max()),
        "frames_of_wrong_episodes": int((found["episode"] != numbers).sum()),
        "ends_not_told": int((found["is_beyond"][:, 1] != is_last).sum()),
    }
    targets = [
        Target("episodes", figures["episodes"], len(recorded), ">="),
        *(
            Target(name, figures[name], 0.0, "<=")
            for name in (
                "state_differs_by",
                "action_differs_by",
                "following_action_differs_by",
                "frames_of_wrong_episodes",
                "ends_not_told",
            )
        ),
    ]
    return figures, targets


if __name__ == "__main__":
    main()
