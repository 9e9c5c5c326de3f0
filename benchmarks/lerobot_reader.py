# SPDX-License-Identifier: Apache-2.0
"""Reads a data set by LeRobot's own loader; runs where LeRobot is installed, and twinloop is not.

    python lerobot_reader.py DATASET OUT.npz

Every frame is read once, and once more with the action that follows it, which LeRobot looks up by
time stamps.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path, out: Path) -> None:
    # Not of this project's environment, whose manifests declare what is imported plainly.
    loader = importlib.import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset
    plain = loader("local/bags", root=folder)
    frames: list[dict[str, Any]] = [plain[index] for index in range(len(plain))]
    step_s = 1.0 / plain.fps
    ahead = loader("local/bags", root=folder, delta_timestamps={"action": [0.0, step_s]})
    windows = [ahead[index] for index in range(len(ahead))]
    np.savez(
        out,
        lerobot=version("lerobot"),
        torch=version("torch"),
        episodes=plain.num_episodes,
        fps=plain.fps,
        state=np.stack([one["observation.state"].numpy() for one in frames]),
        action=np.stack([one["action"].numpy() for one in frames]),
        episode=np.array([int(one["episode_index"]) for one in frames]),
        task=np.array([str(one["task"]) for one in frames]),
        following=np.stack([one["action"].numpy() for one in windows]),
        is_beyond=np.stack([one["action_is_pad"].numpy() for one in windows]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
