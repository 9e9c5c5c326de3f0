# SPDX-License-Identifier: Apache-2.0
"""Where the files that go with the code are: launch, config, urdf, rviz, models."""

from __future__ import annotations

import contextlib
from pathlib import Path

_BRINGUP = "twinloop_bringup"


def share(*parts: str) -> Path:
    """Return the path of an installed file or folder, such as `share("urdf", "hand.urdf.xacro")`.

    Looks in the share folder of the package twinloop_bringup, or, where no workspace is installed
    (unit tests, an editor), in the source tree that this file belongs to.

    Raises:
        FileNotFoundError: neither place has it.
    """
    tried = []
    for root in _roots():
        path = root.joinpath(*parts)
        if path.exists():
            return path
        tried.append(str(path))
    raise FileNotFoundError(f"{Path(*parts)} was not found; looked for {' and '.join(tried)}")


def _roots() -> list[Path]:
    # The source tree comes first: with it at hand, an edited config counts at once.
    source = Path(__file__).resolve().parents[3]
    roots = [source] if (source / "src" / _BRINGUP).is_dir() else []
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_path
    except ImportError:
        return roots
    # OSError: the index is importable, but no prefix is set, so no workspace is sourced.
    with contextlib.suppress(PackageNotFoundError, OSError):
        roots.append(get_package_share_path(_BRINGUP))
    return roots
