# SPDX-License-Identifier: Apache-2.0
"""Colours that all plots share, and how they become files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

KEPT, DROPPED, INK, FAINT, ACCENT = "#1f6f8b", "#c8553d", "#2b2d33", "#c9ced6", "#e3a94f"
_DPI = 120


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and return its path."""
    figure.savefig(path, dpi=_DPI, facecolor="white")
    return path
