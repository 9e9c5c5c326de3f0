# SPDX-License-Identifier: Apache-2.0
"""`twinloop report`: one page of a folder of bags, which needs nothing beside it."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image
from turning_bags import turning, turning_bag
from twinloop.cli.main import main
from twinloop.reporting import film
from twinloop.reporting.episodes import EpisodeFigures


def ended(name: str, rotation_deg: float, dropped: bool = False) -> EpisodeFigures:
    return EpisodeFigures(
        id=name, bags=(), stop_reason="complete", steps=3, rotation_deg=rotation_deg,
        dropped=dropped,
    )  # fmt: skip


def test_best_median_and_worst_are_told_apart() -> None:
    five = [ended("a", 10), ended("b", 400, True), ended("c", 300), ended("d", 20), ended("e", 90)]
    assert [one.id for one in film.ranked(five)] == ["c", "e", "d", "a", "b"]
    assert [(title, one.id) for title, one in film.chosen(five)] == [
        ("best", "c"), ("median", "d"), ("worst", "b"),
    ]  # fmt: skip
    assert [title for title, _ in film.chosen(five[:1])] == ["best"]
    assert film.chosen([]) == []


def test_a_folder_of_bags_becomes_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, turn in enumerate((30.0, 200.0, 120.0)):
        turning_bag(tmp_path, f"turn{index}", turning(turn, steps=12), index=index, plan_ms=20.0)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 0
    path = tmp_path / "report.html"
    assert str(path) in capsys.readouterr().out
    text = path.read_text()
    # Everything is inside: nothing is fetched, nothing runs.
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=['\"](?!data:)", text)
    assert "best: episode 2, 200 deg" in text
    assert "worst: episode 1, 30 deg" in text
    data = re.search(r"data:image/webp;base64,([\w+/=]+)", text)
    assert data is not None
    shown = base64.b64decode(data[1])
    assert len(shown) <= film.MOST_BYTES
    picture = Image.open(io.BytesIO(shown))
    assert picture.is_animated
    assert picture.n_frames >= 10
    assert picture.width == 3 * 240
    assert text.count("data:image/png") >= 2


@pytest.mark.parametrize(
    ("make", "complaint"),
    [(False, "is not a folder"), (True, "holds no complete bag")],
)
def test_a_folder_without_bags_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: bool, complaint: str
) -> None:
    folder = tmp_path / "run"
    if make:
        folder.mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder)])
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err
