# SPDX-License-Identifier: Apache-2.0
"""Labelled windows of both eyes on disk, as the generator writes and the training reads them.

A folder holds `data.json` and, for each part, three NumPy files without pickles:
images [N, 2, H, W, 3] and labels [N, 2, H, W] as bytes (left and right eye), and the middles of the
balls' outlines with their apparent radii (x, y, r) [N, 2, 2, 3] in pixels of these windows. Labels
are 0 background, 1 hand, 2 and 3 the balls. Windows are larger than the network's, so that the
training can shift them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.perception.ball_tracker.eyes import WINDOW

FORMAT = "twinloop-tracker-data/1"
MARGIN = 16  # pixels by which stored windows are larger on each side
STORED = (WINDOW[0] + 2 * MARGIN, WINDOW[1] + 2 * MARGIN)  # width, height
_KINDS = {"images": (np.uint8, 5), "labels": (np.uint8, 4), "balls": (np.float32, 4)}


@dataclass(frozen=True)
class Samples:
    """Labelled windows of both eyes of N pairs.

    Attributes:
        images: RGB [N, 2, H, W, 3].
        labels: [N, 2, H, W].
        balls: x, y, r of both balls [N, 2, 2, 3] (eye, ball), pixels.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    balls: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def begin(folder: Path, about: dict[str, Any]) -> None:
    """Make an empty folder for parts that tell what they are.

    Raises:
        FileExistsError: it holds something already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder, so that data do not mix")
    content = {"format": FORMAT, "window": list(STORED), **about}
    (folder / "data.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_part(
    folder: Path,
    part: int,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    balls: NDArray[np.float32],
) -> None:
    """Write one part; shapes as above."""
    for name, array in (("images", images), ("labels", labels), ("balls", balls)):
        np.save(folder / f"{name}-{part:03d}.npy", array, allow_pickle=False)


def load(folders: list[Path]) -> Samples:
    """Read all parts of folders into memory, in order.

    Raises:
        ValueError: a folder is not of this format, or a file is not as expected; names it.
    """
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _KINDS}
    for folder in folders:
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        if about.get("format") != FORMAT or about.get("window") != list(STORED):
            raise ValueError(
                f"{folder / 'data.json'}: format {about.get('format')!r} with windows "
                f"{about.get('window')}, expected {FORMAT!r} with {list(STORED)}"
            )
        for path in sorted(folder.glob("images-*.npy")):
            number = path.stem.removeprefix("images-")
            for name, (kind, dimensions) in _KINDS.items():
                part = folder / f"{name}-{number}.npy"
                array = np.load(part, allow_pickle=False)
                if array.dtype != kind or array.ndim != dimensions:
                    raise ValueError(
                        f"{part}: {array.dtype} of {array.ndim} dimensions, expected "
                        f"{np.dtype(kind)} of {dimensions}"
                    )
                parts[name].append(array)
    if not parts["images"]:
        raise ValueError(f"{[str(folder) for folder in folders]} hold no images-*.npy")
    return Samples(*(np.concatenate(parts[name]) for name in ("images", "labels", "balls")))
