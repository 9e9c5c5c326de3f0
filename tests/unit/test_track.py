# SPDX-License-Identifier: Apache-2.0
"""`twinloop track`: tracks from the images of a bag, and bags that cannot be tracked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_bags import CAMERAS, PERIOD_NS, START_NS, ImageBag, NumberTracker
from twinloop.bags.check import check
from twinloop.bags.errors import BagError
from twinloop.bags.read import complete_bags, metadata, read_messages
from twinloop.cli.main import main
from twinloop.cli.track import summary
from twinloop.contract import stamp_of
from twinloop.perception import bag_tracking
from twinloop.perception.bag_tracking import TrackingFigures, track_bag
from twinloop.perception.camera_model import pinhole, save_camera


def made(path: Path, fill: Callable[[ImageBag], None], namespace: str = "") -> Path:
    bag = ImageBag(path, namespace)
    fill(bag)
    return bag.close()


def plain(bag: ImageBag) -> None:
    bag.infos()
    bag.pairs(range(20))


def run(bag: Path, **options: Any) -> tuple[TrackingFigures, list[Any], NumberTracker]:
    """Figures, messages written, and the tracker."""
    trackers: list[NumberTracker] = []

    def make(stereo: Any) -> NumberTracker:
        trackers.append(NumberTracker(stereo))
        return trackers[-1]

    out = bag.with_name(bag.name + ".tracks")
    figures = track_bag(bag, out, make, **options)
    return figures, list(read_messages(out)), trackers[0]


def contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("namespace", ["", "/left_cell"])
def test_the_tracks_of_a_bag_are_written_beside_it(tmp_path: Path, namespace: str) -> None:
    bag = made(tmp_path / "one", plain, namespace)
    before = contents(bag)
    figures, messages, _ = run(bag)
    assert contents(bag) == before
    assert (figures.frames, figures.stale) == (20, [0, 4])
    assert figures.counts.paired == 20
    assert {message.topic for message in messages} == {f"{namespace}/balls"}
    for number, message in enumerate(messages):
        balls = message.decode()
        assert stamp_of(balls) == START_NS + number * PERIOD_NS
        assert balls.header.frame_id == "rh_palm"
        assert [ball.id for ball in balls.balls] == [0, 1]
        assert balls.balls[1].position.z == pytest.approx(1e-3 * number)
        assert [ball.stale for ball in balls.balls] == [False, number % 5 == 0]
    out = tmp_path / "one.tracks"
    assert check(out).is_sound
    assert sum(p.stat().st_size for p in out.iterdir()) < 30_000
    # No episode: a learner that reads the folder does not find it.
    assert complete_bags(tmp_path) == [bag]


def test_recorded_balls_are_compared(tmp_path: Path) -> None:
    def fill(bag: ImageBag) -> None:
        bag.infos()
        for number in range(20):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.pairs(range(number, number + 1))
            bag.balls(stamp_ns, 1e-3 * (number + 2), stale=number == 3)

    figures, _, _ = run(made(tmp_path / "one", fill))
    assert figures.compared == 20
    # Ball 1 is hidden in images 0, 5, 10, 15, both were in image 3.
    assert figures.stale_differs == 4 + 2
    assert len(figures.differences_m) == 40 - 6
    assert np.allclose(figures.differences_m, 2e-3 * 3**0.5)
    told = summary(figures)
    assert told["difference_mm"] == {"p50": 3.464, "p95": 3.464}
    assert told["stale_share"] == [0.0, 0.2]


def test_what_cannot_be_tracked_is_left_out_and_counted(tmp_path: Path) -> None:
    def fill(bag: ImageBag) -> None:
        bag.image("left", 0, START_NS - PERIOD_NS)  # before the calibration
        bag.infos()
        bag.pairs(range(5))
        later_ns = START_NS + 10 * PERIOD_NS
        bag.joints(later_ns)
        bag.image("left", 10, later_ns)
        bag.image("right", 10, later_ns, size=(140, 90))
        bag.image("left", 11, later_ns + PERIOD_NS)
        bag.image("right", 11, later_ns + 3 * PERIOD_NS)
        bag.image("left", 60, START_NS + 60 * PERIOD_NS)  # joints are long gone
        bag.image("right", 60, START_NS + 60 * PERIOD_NS)

    figures, messages, _ = run(made(tmp_path / "one", fill))
    assert figures.frames == len(messages) == 5
    assert figures.uncalibrated == 1
    assert figures.counts.refused == 1
    assert figures.counts.skewed == 3
    assert figures.without_joints == 1


def test_a_tracker_forgets_where_time_or_an_episode_begins_anew(tmp_path: Path) -> None:
    def fill(bag: ImageBag) -> None:
        bag.infos()
        bag.pairs(range(5))
        bag.resetting(START_NS + 5 * PERIOD_NS)
        bag.pairs(range(5), start_ns=START_NS - 3 * 10**9)

    figures, _, tracker = run(made(tmp_path / "one", fill))
    assert figures.frames == 10
    assert tracker.resets == 2


def test_stopped_early_it_leaves_a_whole_bag(tmp_path: Path) -> None:
    bag = made(tmp_path / "one", plain)
    seen: list[int] = []
    figures, messages, _ = run(bag, say=seen.append, stop=lambda: len(seen) >= 10)
    assert figures.was_stopped
    assert figures.frames == len(messages) == 5
    assert check(tmp_path / "one.tracks").is_sound


def test_a_calibration_of_ones_own_replaces_the_bags(tmp_path: Path) -> None:
    bag = made(tmp_path / "one", lambda bag: bag.pairs(range(3)))
    with pytest.raises(BagError, match="no messages on /stereo/left/camera_info, /stereo/right"):
        run(bag)
    figures, _, tracker = run(bag, cameras=CAMERAS)
    assert figures.frames == 3
    assert tracker.stereo is CAMERAS


def no_pair(bag: ImageBag) -> None:
    bag.infos()
    bag.joints(START_NS)
    bag.image("left", 1, START_NS)
    bag.image("right", 1, START_NS, size=(20, 10))


def uncalibrated(bag: ImageBag) -> None:
    from sensor_msgs.msg import CameraInfo

    for eye in ("left", "right"):
        bag.write(f"stereo/{eye}/camera_info", CameraInfo(width=280, height=180), START_NS)
    bag.pairs(range(1))


def foreign_joints(bag: ImageBag) -> None:
    from sensor_msgs.msg import JointState

    plain(bag)
    bag.write("joint_states", JointState(name=["elbow"], position=[0.0]), START_NS)


def two_cells(bag: ImageBag) -> None:
    plain(bag)
    bag.namespace = "/second"
    bag.image("left", 1, START_NS)


@pytest.mark.parametrize(
    ("fill", "complaint"),
    [
        (lambda bag: bag.joints(START_NS), "record them with images:=compressed"),
        (no_pair, "right image is 20x10 pixels, expected 280x180"),
        (uncalibrated, "camera_info: camera left: its camera_info has a K of zeros"),
        (foreign_joints, "/joint_states: no position of rh_WRJ2"),
        (two_cells, "images of several cells: /second/stereo"),
    ],
)
def test_a_bag_that_cannot_be_tracked_is_refused_and_leaves_nothing(
    tmp_path: Path, fill: Callable[[ImageBag], None], complaint: str
) -> None:
    bag = made(tmp_path / "one", fill)
    with pytest.raises(BagError, match=complaint):
        run(bag)
    assert not (tmp_path / "one.tracks").exists()


def test_a_damaged_bag_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    bag = made(tmp_path / "one", plain)
    path = bag / "one.mcap"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BagError, match="is damaged at byte"):
        run(bag)
    assert not (tmp_path / "one.tracks").exists()


# The command.


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["track", *(str(word) for word in words)])
    return int(ended.value.code or 0)


def test_the_command_runs_the_shipped_tracker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = made(tmp_path / "one", plain)
    assert call("--bag", bag, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == 20
    # Grey images show no balls, and it does not make any up.
    assert told["stale_share"] == [1.0, 1.0]
    assert json.loads((tmp_path / "one.tracks" / "report.json").read_text()) == told
    assert metadata(tmp_path / "one.tracks").message_count == 20
    assert call("--bag", bag) == 2
    assert "one.tracks is there already" in capsys.readouterr().err


def test_the_command_ends_at_ctrl_c_with_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(NumberTracker):
        def update(self, *arguments: Any) -> Any:
            if len(self.stamps_s) == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return super().update(*arguments)

    monkeypatch.setattr(
        "twinloop.perception.ball_tracker.BallTracker",
        lambda stereo, mount, weights: Interrupted(stereo),
    )
    bag = made(tmp_path / "one", plain)
    assert call("--bag", bag, "--out", tmp_path / "there") == 130
    assert "stopped before the bag's end" in capsys.readouterr().out
    assert metadata(tmp_path / "there").message_count == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--bag", "nowhere"], "nowhere: is not there, expected the folder of a bag"),
        (["--bag", "one", "--cameras", "."], "left.yaml"),
        (["--bag", "one", "--mount", "nowhere.yaml"], "nowhere.yaml"),
        (["--bag", "one", "--weights", "nowhere"], "nowhere"),
    ],
)
def test_what_is_missing_is_told_in_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    complaint: str,
) -> None:
    made(tmp_path / "one", plain)
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    said = capsys.readouterr().err.strip()
    assert complaint in said
    assert "\n" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_cameras_may_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = made(tmp_path / "one", lambda bag: bag.pairs(range(3)))
    save_camera(tmp_path / "left.yaml", CAMERAS.left)
    save_camera(tmp_path / "right.yaml", pinhole("right", (280, 180), 60.0, baseline_m=0.12))
    assert call("--bag", bag, "--cameras", tmp_path) == 0
    assert "frames" in capsys.readouterr().out


def test_a_phase_of_episodes_is_what_the_message_calls_it() -> None:
    from twinloop_interfaces.msg import EpisodeStatus

    assert EpisodeStatus.RESETTING == bag_tracking._RESETTING
