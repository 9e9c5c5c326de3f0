# SPDX-License-Identifier: Apache-2.0
"""`twinloop calibrate`: from pictures to files, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_sessions import (
    CAMERA,
    MOUNT,
    PALM,
    TWIN,
    WRIST,
    Recorded,
    Room,
    draw_board_on_mount,
    draw_board_on_palm,
    draw_mount,
    draw_wrist,
    record,
)
from twinloop.bags.types import message_class
from twinloop.bags.write import EpisodeWriter
from twinloop.cli import main as command_line
from twinloop.perception.calibration.boards import parse_board
from twinloop.perception.calibration.collecting import Collection, Shot
from twinloop.perception.calibration.detection import detect
from twinloop.perception.calibration.link import Link
from twinloop.perception.calibration.sources import bag_shots
from twinloop.perception.camera_model import StereoModel, load_camera, save_camera
from twinloop.perception.mount import Mount, load_mount, save_mount
from twinloop.robots.description import hand_urdf

BOARD = "charuco:8x5:34:25"
HAND_BOARD = "charuco:6x4:30:22"


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return record(parse_board(BOARD))


@pytest.fixture(scope="module")
def pictures(recorded, tmp_path_factory) -> Path:
    return save(recorded.shots, tmp_path_factory.mktemp("pictures"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(shots: list[Shot], folder: Path) -> Path:
    """Write pictures as `left/` and `right/` of a folder."""
    for eye in ("left", "right"):
        (folder / eye).mkdir(parents=True)
    for shot in shots:
        for eye, image in zip(("left", "right"), shot.images, strict=True):
            cv2.imwrite(str(folder / eye / f"{shot.name}.png"), image)
    return folder


def calibrate(capsys, *words: object) -> tuple[int, str, str]:
    """Run the command; returns its status, and what it printed to stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        command_line.main(["calibrate", *(str(word) for word in words)])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def load_pair(folder: Path) -> StereoModel:
    return StereoModel(load_camera(folder / "left.yaml"), load_camera(folder / "right.yaml"))


# Stereo.


def test_pictures_give_both_cameras_a_report_and_its_pictures(recorded, pictures, capsys) -> None:
    Path("cal").mkdir()
    for name in ("left.yaml", "mount.yaml"):
        Path("cal", name).write_text("mine")
    words = ("stereo", "--board", BOARD, "--images", pictures, "--out", "cal", "--run", "run")
    status, _, err = calibrate(capsys, *words)
    assert status == 2
    assert "cal/left.yaml is there already" in err
    assert Path("cal/left.yaml").read_text() == "mine"
    status, out, err = calibrate(capsys, *words, "--force", "--json")
    assert status == 0, err
    pair = load_pair(Path("cal"))
    assert pair.baseline_m == pytest.approx(recorded.truth.baseline_m, abs=5e-4)
    assert pair.left.k[0, 0] == pytest.approx(recorded.truth.left.k[0, 0], rel=0.005)
    assert sorted(path.name for path in Path("cal").iterdir()) == [
        "left.yaml",
        "mount.yaml",
        "right.yaml",
    ]
    assert "baseline" in err
    assert "cal/mount.yaml is of the calibration before" in " ".join(err.split())
    report = json.loads(Path("run/report.json").read_text())
    assert json.loads(out) == report
    assert {"machine", "commit", "command", "versions"} <= set(report)
    assert report["files"] == ["cal/left.yaml", "cal/right.yaml"]
    assert report["board"] == BOARD
    assert report["baseline_mm"] == pytest.approx(1e3 * pair.baseline_m, abs=0.01)
    assert report["eyes"]["left"]["reprojection_px"] < 0.1
    assert all(target["holds"] for target in report["targets"])
    for name in ("coverage.png", "errors.png"):
        assert cv2.imread(f"run/{name}") is not None


def test_too_few_pictures_are_refused_with_a_report_and_no_files(pictures, capsys) -> None:
    few = Path("few")
    for eye in ("left", "right"):
        (few / eye).mkdir(parents=True)
        for path in sorted((pictures / eye).iterdir())[:6]:
            shutil.copy(path, few / eye)
    status, out, _ = calibrate(
        capsys, "stereo", "--board", BOARD, "--images", few, "--out", "cal", "--run", "run"
    )
    assert status == 1
    assert "no calibration was made" in out
    assert "10 are needed: take" in " ".join(out.split())
    assert not Path("cal").exists()
    report = json.loads(Path("run/report.json").read_text())
    assert len(report["refused"]) >= 1
    assert cv2.imread("run/coverage.png") is not None


def test_another_board_is_refused_with_what_the_pictures_show(pictures, capsys) -> None:
    status, out, _ = calibrate(
        capsys, "stereo", "--board", "charuco:7x5:34:25", "--images", pictures
    )
    assert status == 1
    assert "has 0 to 16: are the counts of squares right?" in " ".join(out.split())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("lost", "28 left and 27 right pictures; right/ has no 07"),
        ("empty", "holds no pictures"),
        ("size", "is 320x240 pixels, left/00 280x180"),
        ("broken", "right/07.png"),
    ],
)
def test_folders_that_are_no_pairs_are_refused(pictures, capsys, damage, says) -> None:
    shutil.copytree(pictures, "broken")
    one = Path("broken/right/07.png")
    if damage == "lost":
        one.unlink()
    elif damage == "empty":
        shutil.rmtree("broken/left")
        Path("broken/left").mkdir()
    elif damage == "size":
        cv2.imwrite(str(one), np.zeros((240, 320), np.uint8))
    else:
        one.write_bytes(b"no picture")
    status, out, _ = calibrate(capsys, "stereo", "--board", BOARD, "--images", "broken")
    assert status == 1
    assert says in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--board", "charuco:8x5"), "expected chessboard:<inner corners"),
        (("--board", BOARD, "--images", "a", "--bag", "b"), "not both"),
        (("--board", BOARD, "--bag", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_on_the_command_line_are_told_in_one_line(capsys, words, says) -> None:
    status, _, err = calibrate(capsys, "stereo", *words)
    assert status == 2
    assert says in err
    assert len(err.splitlines()) == 1


# Bags.


def image_message(image: np.ndarray, stamp_ns: int):
    message = message_class("sensor_msgs/msg/CompressedImage")
    header = message_class("std_msgs/msg/Header")
    time = message_class("builtin_interfaces/msg/Time")
    data = cv2.imencode(".png", image)[1].ravel()
    stamp = time(*divmod(stamp_ns, 10**9))
    return message(header=header(stamp=stamp, frame_id=""), format="mono8; png", data=data)


def write_bag(path: Path, shots: list[Shot], names: tuple[str, ...] = ()) -> Path:
    """Write each shot twice, as a camera sees somebody who holds still, half a second each."""
    joint_state = message_class("sensor_msgs/msg/JointState")
    header = message_class("std_msgs/msg/Header")
    time = message_class("builtin_interfaces/msg/Time")
    writer = EpisodeWriter(path, None)
    for index, shot in enumerate(shots):
        for again in range(2):
            now_ns = 10**12 + index * 10**9 + again * 200_000_000
            for later_ns in (-20_000_000, 30_000_000) if names else ():
                stamp = time(*divmod(now_ns + later_ns, 10**9))
                positions = np.array(shot.joints)
                state = joint_state(
                    header=header(stamp=stamp, frame_id=""),
                    name=list(names),
                    position=positions,
                    velocity=np.zeros(0),
                    effort=np.zeros(0),
                )
                writer.write("/joint_states", "sensor_msgs/msg/JointState", state, now_ns)
            for eye, image in zip(("left", "right"), shot.images, strict=True):
                topic = f"/stereo/{eye}/image_raw/compressed"
                message = image_message(image, now_ns)
                writer.write(topic, "sensor_msgs/msg/CompressedImage", message, now_ns)
    writer.close()
    return path


def test_a_bag_gives_the_same_as_its_pictures(recorded, capsys) -> None:
    bag = write_bag(Path("bag"), recorded.shots)
    status, out, err = calibrate(capsys, "stereo", "--board", BOARD, "--bag", bag, "--out", "cal")
    assert status == 0, out + err
    baseline_m = load_pair(Path("cal")).baseline_m
    assert baseline_m == pytest.approx(recorded.truth.baseline_m, abs=5e-4)


def test_joints_of_a_bag_are_those_of_the_pictures_times(recorded) -> None:
    shots = [
        replace(shot, joints=np.array([0.1 * i, 0.5])) for i, shot in enumerate(recorded.shots)
    ]
    bag = write_bag(Path("bag"), shots[:4], WRIST)
    found = list(bag_shots(bag, ("rh_WRJ1", "rh_WRJ2")))
    assert len(found) == 8
    np.testing.assert_allclose(
        [shot.joints for shot in found[::2]], [[0.5, 0.1 * i] for i in range(4)]
    )


# Choosing views of a stream.


def test_views_are_taken_when_held_still_and_new(recorded) -> None:
    collection = Collection(parse_board(BOARD), lambda views: [])
    first = next(shot for shot in recorded.shots if detect(parse_board(BOARD), shot.images[0]))
    other = next(
        shot for shot in reversed(recorded.shots) if detect(parse_board(BOARD), shot.images[0])
    )
    blank = Shot("blank", tuple(np.full((180, 280), 90, np.uint8) for _ in range(2)))
    assert collection.offer(blank) == "the board is not seen"
    assert collection.offer(first) == "hold still"
    assert collection.offer(first) == ""
    assert collection.offer(first) == "like a view before, change it"
    assert collection.offer(other) == "hold still"
    assert collection.offer(other) == ""
    assert len(collection.views) == 2


# The hand's cameras.


@pytest.fixture(scope="module")
def palm(recorded) -> tuple[Mount, list[Shot]]:
    rng = np.random.default_rng(5)
    board, mount, link = parse_board(HAND_BOARD), draw_mount(rng), Link(hand_urdf(), MOUNT, PALM)
    room, place = Room(recorded.truth, board, TWIN), draw_board_on_palm(board, rng)
    shots = []
    for index in range(16):
        wrist = draw_wrist(rng)
        images = room.take(np.linalg.inv(mount) @ link.pose(wrist) @ place, rng)
        shots.append(Shot(f"{index:02d}", images, wrist))
    return Mount(MOUNT, CAMERA, mount), shots


def save_truth(recorded: Recorded, folder: Path) -> Path:
    folder.mkdir()
    save_camera(folder / "left.yaml", recorded.truth.left)
    save_camera(folder / "right.yaml", recorded.truth.right)
    return folder


def angle_deg(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(cv2.Rodrigues(one[:3, :3].T @ other[:3, :3])[0])))


def test_one_view_of_a_board_at_a_known_place_gives_the_mount(recorded, capsys) -> None:
    rng = np.random.default_rng(4)
    board, mount = parse_board(HAND_BOARD), draw_mount(rng)
    place = draw_board_on_mount(board, mount, rng)
    images = Room(recorded.truth, board, TWIN).take(np.linalg.inv(mount) @ place, rng)
    save([Shot("00", images)], Path("pictures"))
    save_mount("board.yaml", Mount(MOUNT, "board", place))
    folder = save_truth(recorded, Path("cal"))
    words = ("hand-camera", "--board", HAND_BOARD, "--images", "pictures", "--out", folder)
    status, out, err = calibrate(capsys, *words, "--board-pose", "board.yaml", "--run", "run")
    assert status == 0, out + err
    found = load_mount(folder / "mount.yaml")
    assert (found.parent, found.child) == (MOUNT, CAMERA)
    assert np.linalg.norm(found.transform[:3, 3] - mount[:3, 3]) < 0.002
    assert angle_deg(found.transform, mount) < 0.3
    report = json.loads(Path("run/report.json").read_text())
    assert report["from_the_description"]["mm"] < 25.0
    assert Path("run/coverage.png").exists()
    status, _, err = calibrate(capsys, *words, "--board-pose", "board.yaml")
    assert status == 2
    assert "mount.yaml is there already" in err


def test_a_board_on_the_palm_gives_the_mount_from_pictures_and_a_table(
    recorded, palm, capsys
) -> None:
    mount, shots = palm
    folder = save(shots, Path("pictures"))
    rows = [f"{shot.name}.png, {shot.joints[1]}, {shot.joints[0]}" for shot in shots]
    (folder / "joints.csv").write_text("\n".join(["picture, rh_WRJ1, rh_WRJ2", *rows]))
    cameras = save_truth(recorded, Path("cameras"))
    words = ("--board", HAND_BOARD, "--board-on", PALM, "--images", folder)
    status, out, err = calibrate(
        capsys, "hand-camera", *words, "--cameras", cameras, "--out", "cal", "--json"
    )
    assert status == 0, out + err
    found = load_mount("cal/mount.yaml").transform
    assert np.linalg.norm(found[:3, 3] - mount.transform[:3, 3]) < 0.002
    assert angle_deg(found, mount.transform) < 0.3
    assert json.loads(out)["joint_std_deg"] < 0.05


def test_a_bag_of_the_palm_gives_the_mount(recorded, palm, capsys) -> None:
    mount, shots = palm
    bag = write_bag(Path("bag"), shots, WRIST)
    folder = save_truth(recorded, Path("cal"))
    words = ("--board", HAND_BOARD, "--board-on", PALM, "--bag", bag, "--out", folder)
    status, out, err = calibrate(capsys, "hand-camera", *words)
    assert status == 0, out + err
    found = load_mount(folder / "mount.yaml").transform
    assert np.linalg.norm(found[:3, 3] - mount.transform[:3, 3]) < 0.002


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--board", "chessboard:9x6:25", "--board-on", PALM), "upside down"),
        (("--board", HAND_BOARD), "--board-pose, a file with the board's place, or --board-on"),
        (("--board", HAND_BOARD, "--board-on", "rh_nose"), "no link 'rh_nose'"),
        (("--board", HAND_BOARD, "--board-on", PALM, "--out", "no"), "no/left.yaml is not there"),
        (("--board", HAND_BOARD, "--board-pose", "no.yaml"), "no.yaml is not there"),
        (("--board", HAND_BOARD, "--board-on", PALM, "--side", "upper"), "upper"),
    ],
)
def test_mistakes_about_the_hand_are_told_in_one_line(recorded, capsys, words, says) -> None:
    save_truth(recorded, Path("calibration"))
    status, _, err = calibrate(capsys, "hand-camera", *words)
    assert status == 2
    assert says in err
    assert len(err.splitlines()) == 1


def test_pictures_of_a_moving_link_without_joint_positions_are_refused(
    recorded, palm, capsys
) -> None:
    folder = save(palm[1][:2], Path("pictures"))
    save_truth(recorded, Path("calibration"))
    words = ("hand-camera", "--board", HAND_BOARD, "--board-on", PALM, "--images", folder)
    status, out, _ = calibrate(capsys, *words)
    assert status == 1
    assert "expected a table 'picture,rh_WRJ2,rh_WRJ1'" in " ".join(out.split())
    (folder / "joints.csv").write_text("picture,rh_WRJ1,rh_WRJ2\n00,0.1,0.2\n")
    status, out, _ = calibrate(capsys, *words, "--run", "again")
    assert "has no joint positions of picture 01" in " ".join(out.split())


# Boards to print.


@pytest.mark.parametrize("text", ["charuco:7x6:25:18", "chessboard:9x6:25"])
def test_a_printed_board_is_true_to_scale(capsys, text) -> None:
    status, out, _ = calibrate(capsys, "board", "board.png", "--board", text)
    assert status == 0
    assert f"--board {text}" in out
    image = cv2.imread("board.png", cv2.IMREAD_GRAYSCALE)
    assert image.shape[1] == pytest.approx(297 / 25.4 * 600, abs=1)
    small = cv2.resize(image, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
    board = parse_board(text)
    found = detect(board, small)
    assert found is not None
    assert len(found.ids) == len(board.points)
    # 600 dots an inch, a fifth of them.
    size = (found.pixels[-1] - found.pixels[0]) / (120 / 25.4) / 1e3
    expected = (board.points[-1] - board.points[0])[:2]
    np.testing.assert_allclose(np.abs(size), expected, atol=1e-4)


def test_boards_that_cannot_be_printed_are_refused(capsys) -> None:
    status, _, err = calibrate(capsys, "board", "board.pdf", "--board", "charuco:8x5:50:40")
    assert status == 2
    assert "400 x 250 mm, with its margin too large for A4" in err
    assert "ends with .pdf or .png" in calibrate(capsys, "board", "board.gif")[2]
    assert "expected one of A4" in calibrate(capsys, "board", "b.pdf", "--paper", "A9")[2]
    assert calibrate(capsys, "board", "board.pdf")[0] == 0
    assert Path("board.pdf").read_bytes().startswith(b"%PDF")
    assert "is there already" in calibrate(capsys, "board", "board.pdf")[2]
