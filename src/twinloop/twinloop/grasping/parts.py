# SPDX-License-Identifier: Apache-2.0
"""Parts of data on disk, a NumPy archive each, as the twin writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_parts(
    folder: Path, split: str, names: tuple[str, ...]
) -> Iterator[tuple[Path, list[NDArray[Any]]]]:
    """Yield each part of a split, by its number, and its arrays of these names.

    Raises:
        ValueError: there are none, or one is damaged or lacks an array; names the file.
    """
    paths = [p for p in sorted(folder.glob(f"{split}-*.npz")) if not p.name.endswith(".tmp.npz")]
    if not paths:
        raise ValueError(f"{folder} holds no parts of split {split!r}: expected {split}-00000.npz")
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as part:
                arrays = [part[name] for name in names]
        except Exception as error:  # whatever zip, zlib and numpy's reader of headers raise
            raise ValueError(
                f"{path}: is no part with {', '.join(names)}: {type(error).__name__}: {error}"
            ) from error
        yield path, arrays
