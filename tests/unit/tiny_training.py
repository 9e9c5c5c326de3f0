# SPDX-License-Identifier: Apache-2.0
"""A training run of a few seconds, which a test can also start as a process and kill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twinloop.learning.fit import FitConfig
from twinloop.learning.protocol import Protocol
from twinloop.learning.train import TrainResult, train
from twinloop.learning.training_run import Listener

CONFIG = Protocol(
    stages=(90,),
    first=60,
    per_round=30,
    steps=15,
    updates_stage=2,
    updates_round=2,
    updates_last=2,
    hands=2,
    planner={"samples": 6, "horizon": 2},
    fit=FitConfig(batch=32),
    held_out_share=0.2,
)
SILENT = Listener(lambda _: None)


def run(out: Path, **changes: Any) -> TrainResult:
    """Train in a folder."""
    settings = {"task": "baoding", "workers": 1, "evaluate": 1, "config": CONFIG}
    return train(out, **(settings | {"listener": SILENT} | changes))


if __name__ == "__main__":
    run(
        Path(sys.argv[1]),
        listener=Listener(
            lambda text: print(text, flush=True),
            lambda episode, _: print(episode.meta["episode_id"], flush=True),
        ),
    )
