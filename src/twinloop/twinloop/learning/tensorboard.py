# SPDX-License-Identifier: Apache-2.0
"""TensorBoard logs of a training run, where that package is installed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


class TensorBoardMissing(ImportError):
    """The package tensorboard is not installed."""


class Board:
    """Event files in a folder, made anew by each process of a run.

    A run that is carried on tells of its former rounds again, so nothing is lost and nothing stands
    twice.

    Raises:
        TensorBoardMissing: see there.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TensorBoardMissing(
                "--tensorboard needs the package tensorboard, which is not installed; "
                ".venv/bin/pip install tensorboard adds it"
            ) from error
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))

    def write(self, figures: Mapping[str, float | None], transitions: float) -> None:
        """Write each figure as a curve over the transitions collected."""
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, int(transitions))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
