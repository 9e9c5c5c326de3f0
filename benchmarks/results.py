# SPDX-License-Identifier: Apache-2.0
"""Makes docs/results.md from the reports under benchmarks/results/.

python benchmarks/results.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEAD = """# Results

Each section is the newest full run of one benchmark (`make bench-NAME FULL=1`), failures included.
`make results` makes this page from the reports under `benchmarks/results/`; it is not edited by
hand. Figures that are too large for a table are in those files.
"""


def render(folder: Path, page: Path) -> str:
    """Return the page's text for the reports in a folder; links are relative to the page."""
    parts = [_HEAD]
    for path in sorted(folder.glob("*.json")):
        parts.append(_section(json.loads(path.read_text(encoding="utf-8")), path, page))
    return "\n".join(parts)


def write(folder: Path, page: Path) -> None:
    """Write the page."""
    page.write_text(render(folder, page), encoding="utf-8")


def number(value: Any) -> str:
    """Return a figure as people read it."""
    if value is None:
        return "not measured"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def scalar_lines(figures: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a line for each figure that is one value, however deep it lies in dictionaries."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from scalar_lines(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield f"{prefix}{name}: {number(value)}"


def _section(report: dict[str, Any], path: Path, page: Path) -> str:
    about, here = report["machine"], page.parent
    commit = (report["commit"] or "unknown")[:12]
    lines = [
        f"## {report['name']}",
        "",
        f"`{report['command']}` at commit `{commit}` on {about['cpu']}, {about['cores']} cores, "
        f"{about['memory_gb']:.0f} GB.",
        "",
    ]
    if report["figures"].get("cut"):
        lines += [f"**Cut short:** {report['figures']['cut']}", ""]
    if report["targets"]:
        rows = [
            [one["name"], number(one["value"]), one["bound"], "holds" if one["holds"] else "missed"]
            for one in report["targets"]
        ]
        lines += [*_table(["target", "value", "bound", ""], rows), ""]
    lines += _tables(report["figures"])
    lines += [f"- {line}" for line in scalar_lines(report["figures"]) if line[:5] != "cut: "]
    lines += ["", f"Report: [{path.name}]({_link(path, here)})", ""]
    for name in report["plots"]:
        lines += [f"![{Path(name).stem}]({_link(path.parent / name, here)})", ""]
    return "\n".join(lines)


def _tables(figures: dict[str, Any], prefix: str = "") -> list[str]:
    """Return figures that are rows with equal names as tables."""
    lines: list[str] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += _tables(value, f"{prefix}{name}.")
        elif _is_rows(value):
            columns = list(value[0])
            rows = [[number(row[column]) for column in columns] for row in value]
            lines += [f"**{prefix}{name}**", "", *_table(columns, rows), ""]
    return lines


def _is_rows(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= 40
        and all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value)
        and not any(isinstance(one, dict | list) for row in value for one in row.values())
    )


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]


def _link(path: Path, start: Path) -> str:
    return os.path.relpath(path, start)


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    write(root / "benchmarks" / "results", root / "docs" / "results.md")


if __name__ == "__main__":
    main()
