# SPDX-License-Identifier: Apache-2.0
"""Errors of launch files."""

from __future__ import annotations

from pathlib import Path


class LaunchError(Exception):
    """A launch file, or an argument given to it, that cannot be run.

    Its text starts with `file:line:` where the fault has a place in a file.
    """

    def __init__(self, message: str, path: Path | None = None, line: int | None = None) -> None:
        self.message = message
        self.path = path
        self.line = line
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)


class SubstitutionError(ValueError):
    """A `$(...)` that is malformed, unknown or cannot be resolved."""
