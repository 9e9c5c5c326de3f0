# SPDX-License-Identifier: Apache-2.0
"""Stereo cameras through OpenCV: files and folders in their place, and cameras that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_cameras import FakeCameras, until
from twinloop.drivers.faults import DeviceLost, DeviceMissing, EndOfStream
from twinloop.drivers.frame_reader import FrameReader, ReaderSettings
from twinloop.drivers.frame_timing import FrameTiming
from twinloop.drivers.inputs import CaptureSettings, image_paths
from twinloop.drivers.stereo_camera import StereoCamera, StereoFrame, StereoSettings
from twinloop.perception.image_files import ImageRefused

WIDTH, HEIGHT = 32, 24


def picture(value: int, width: int = WIDTH) -> np.ndarray:
    return np.full((HEIGHT, width, 3), value, np.uint8)


def write_folder(folder: Path, values: list[int], width: int = WIDTH) -> Path:
    folder.mkdir(parents=True)
    for number, value in enumerate(values, start=8):  # so that 9 comes before 10
        cv2.imwrite(str(folder / f"image{number}.png"), picture(value, width))
    return folder


def write_video(path: Path, pictures: list[np.ndarray]) -> Path:
    height, width = pictures[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 50.0, (width, height))
    for each in pictures:
        writer.write(each)
    writer.release()
    return path


def open_camera(left: Path | str, right: Path | str = "", **changes: Any) -> StereoCamera:
    stand_in = {"open_capture": changes.pop("open_capture")} if "open_capture" in changes else {}
    clock = changes.pop("now_ns", count(1000).__next__)
    settings = StereoSettings(str(left), str(right), **changes)
    return StereoCamera(settings, clock, sleep=lambda _: None, **stand_in)


def read_all(camera: StereoCamera) -> list[tuple[int, int]]:
    """What value each eye saw, until the end."""
    seen = []
    while True:
        try:
            frame = camera.read()
        except EndOfStream:
            camera.close()
            return seen
        assert frame.left.shape[0] == frame.right.shape[0] == HEIGHT
        seen.append((round(float(frame.left.mean())), round(float(frame.right.mean()))))


# Files and folders.


def test_a_folder_with_folders_of_both_eyes_is_read_in_order(tmp_path: Path) -> None:
    write_folder(tmp_path / "left", [10, 20, 30])
    write_folder(tmp_path / "right", [11, 21, 31])
    assert read_all(open_camera(tmp_path)) == [(10, 11), (20, 21), (30, 31)]


def test_the_eyes_may_have_folders_of_their_own(tmp_path: Path) -> None:
    left, right = write_folder(tmp_path / "a", [1, 2]), write_folder(tmp_path / "b", [3, 4])
    assert read_all(open_camera(left, right)) == [(1, 3), (2, 4)]


def test_a_side_by_side_image_is_cut_in_two(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    cv2.imwrite(str(tmp_path / "both" / "1.png"), np.hstack([picture(5), picture(6)]))
    assert read_all(open_camera(tmp_path / "both")) == [(5, 6)]


def test_grey_images_are_taken_too(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    grey = np.hstack([picture(5), picture(6)])[..., 0]
    cv2.imwrite(str(tmp_path / "both" / "1.png"), grey)
    assert read_all(open_camera(tmp_path / "both")) == [(5, 6)]


def test_a_video_is_read_to_its_end(tmp_path: Path) -> None:
    values = [(40 * k, 250 - 40 * k) for k in range(5)]
    both = [np.hstack([picture(a), picture(b)]) for a, b in values]
    camera = open_camera(write_video(tmp_path / "both.avi", both))
    assert camera.rate_hz == 50.0
    assert np.abs(np.subtract(read_all(camera), values)).max() <= 2


def test_the_eyes_may_have_videos_of_their_own(tmp_path: Path) -> None:
    left = write_video(tmp_path / "l.avi", [picture(20), picture(40)])
    right = write_video(tmp_path / "r.avi", [picture(120), picture(140)])
    seen = read_all(open_camera(left, right))
    assert np.abs(np.subtract(seen, [(20, 120), (40, 140)])).max() <= 2


@pytest.mark.parametrize("is_video", [False, True])
def test_a_file_is_begun_anew_where_that_is_asked_for(tmp_path: Path, is_video: bool) -> None:
    if is_video:
        path = write_video(tmp_path / "both.avi", [picture(20), picture(40)])
    else:
        path = write_folder(tmp_path / "both", [20, 40])
    camera = open_camera(path, loop=True)
    seen = [round(float(camera.read().left.mean()) / 20) for _ in range(5)]
    assert seen == [1, 2, 1, 2, 1]


def test_files_are_delivered_at_their_rate(tmp_path: Path) -> None:
    waits: list[float] = []
    settings = StereoSettings(str(write_folder(tmp_path / "both", [1] * 20)), rate_hz=4.0)
    camera = StereoCamera(settings, sleep=waits.append)
    for _ in range(5):
        camera.read()
    # Nobody really waited, so every image is due a period later than the one before.
    assert waits == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.2)


def test_images_are_ordered_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    for name in ("b2.png", "b10.jpg", "a11.jpeg", "note.txt", "b1.PNG", "7.png", "x_1_2.png"):
        (tmp_path / name).touch()
    names = [path.name for path in image_paths(tmp_path)]
    assert names == ["a11.jpeg", "b1.PNG", "b2.png", "b10.jpg", "x_1_2.png", "7.png"]


def test_a_damaged_image_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "both", [1, 2, 3])
    (folder / "image9.png").write_bytes(b"not a picture")
    camera = open_camera(folder)
    camera.read()
    with pytest.raises(ImageRefused, match="image9.png: compressed image of 13 bytes"):
        camera.read()
    assert camera.read().left[0, 0, 0] == 3


def test_an_odd_width_cannot_be_cut_in_two(tmp_path: Path) -> None:
    camera = open_camera(write_folder(tmp_path / "both", [1], width=33))
    with pytest.raises(ImageRefused, match="33 pixels wide, expected an even number"):
        camera.read()


def test_row_19_an_image_that_its_calibration_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "both", [1])
    camera = open_camera(folder, sizes={"left": (16, 24), "right": (280, 180)})
    with pytest.raises(ImageRefused, match="right image is 16x24 pixels, expected 280x180"):
        camera.read()


def refused(left: Path | str, right: Path | str = "") -> str:
    with pytest.raises(DeviceMissing) as refusal:
        open_camera(left, right)
    return str(refusal.value)


def test_what_is_no_camera_is_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "both", [1, 2])
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.avi").write_text("not a video")
    write_folder(tmp_path / "other", [1])
    assert "nothing.avi: no such file or folder" in refused(tmp_path / "nothing.avi")
    assert "the empty name: no such file" in refused("")
    assert "empty holds no images, expected .png, .jpg" in refused(tmp_path / "empty")
    assert "text.avi cannot be read as a video" in refused(tmp_path / "text.avi")
    assert "expected two cameras, or two files" in refused(tmp_path / "both", "0")
    unequal = refused(tmp_path / "both", tmp_path / "other")
    assert "different numbers of images" in unequal
    assert "both 2 and" in unequal


# Cameras.


@pytest.fixture
def cameras() -> Iterator[FakeCameras]:
    made = FakeCameras()
    yield made
    made.go_on()


def test_both_eyes_are_taken_before_either_is_decoded(cameras: FakeCameras) -> None:
    clock = count(10)
    camera = open_camera("0", "/dev/video1", open_capture=cameras.open, now_ns=lambda: next(clock))
    frame = camera.read()
    done = [call for call in cameras.calls if call[0] in ("grab", "retrieve")]
    assert done == [
        ("grab", 0),
        ("grab", "/dev/video1"),
        ("retrieve", 0),
        ("retrieve", "/dev/video1"),
    ]
    assert (frame.left_stamp_ns, frame.right_stamp_ns) == (10, 11)


def test_a_camera_is_asked_for_what_is_wanted(cameras: FakeCameras) -> None:
    capture = CaptureSettings(width=28, height=18, fps=60.0, fourcc="MJPG")
    open_camera("0", capture=capture, open_capture=cameras.open)
    asked = dict(value for call, value in cameras.calls if call == "set")
    assert asked == {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"),
        cv2.CAP_PROP_FRAME_WIDTH: 28,
        cv2.CAP_PROP_FRAME_HEIGHT: 18,
        cv2.CAP_PROP_FPS: 60.0,
        cv2.CAP_PROP_BUFFERSIZE: 1,
    }


def test_a_camera_that_gives_another_size_is_refused(cameras: FakeCameras) -> None:
    capture = CaptureSettings(width=1280, height=720)
    with pytest.raises(DeviceMissing, match="camera 0 gives 28x18 pixels, asked for 1280x720"):
        open_camera("0", capture=capture, open_capture=cameras.open)
    assert cameras.count("release") == 1


def test_a_camera_that_is_not_there_is_named(cameras: FakeCameras) -> None:
    cameras.is_plugged = False
    with pytest.raises(DeviceMissing, match="camera 3 cannot be opened: is it plugged in"):
        open_camera("3", open_capture=cameras.open)


def test_a_camera_that_is_pulled_out_is_lost(cameras: FakeCameras) -> None:
    camera = open_camera("0", open_capture=cameras.open)
    camera.read()
    cameras.is_plugged = False
    with pytest.raises(DeviceLost, match="camera 0 gives no images any more"):
        camera.read()


def test_row_19_an_empty_image_is_refused(cameras: FakeCameras) -> None:
    camera = open_camera("0", open_capture=cameras.open)
    cameras.is_empty = True
    with pytest.raises(ImageRefused, match="0: an empty image"):
        camera.read()


# Reading on, whatever happens.

PATIENCE = ReaderSettings(silent_s=0.1, hung_s=0.3, first_wait_s=0.01, longest_wait_s=0.04)
StartReader = Callable[..., tuple[FrameReader, list[StereoFrame]]]


@pytest.fixture
def start(cameras: FakeCameras) -> Iterator[StartReader]:
    readers = []

    def make(left: str = "0", **changes: Any) -> tuple[FrameReader, list[StereoFrame]]:
        frames: list[StereoFrame] = []
        on_frame = changes.pop("on_frame", frames.append)
        reader = FrameReader(
            lambda: open_camera(left, open_capture=cameras.open, **changes),
            on_frame,
            lambda frame: frame.left_stamp_ns,
            PATIENCE,
        )
        readers.append(reader)
        reader.start()
        return reader, frames

    yield make
    cameras.go_on()
    for reader in readers:
        reader.stop()


def test_a_camera_is_read_until_told_to_stop(start: StartReader, cameras: FakeCameras) -> None:
    reader, frames = start()
    until(lambda: len(frames) >= 20)
    until(lambda: reader.status().state == "reading")
    assert reader.status().frames >= 20
    reader.stop()
    seen = len(frames)
    assert cameras.count("release") == 1
    assert reader.status().state == "idle"
    assert len(frames) == seen


def test_row_18_a_camera_that_stalls_is_told_and_resumes_by_itself(
    start: StartReader, cameras: FakeCameras
) -> None:
    reader, frames = start()
    until(lambda: len(frames) >= 10)
    cameras.hang()
    until(lambda: reader.status().state == "silent")
    assert "no images for 0." in reader.status().text
    seen = len(frames)
    cameras.go_on()
    until(lambda: len(frames) >= seen + 10)
    until(lambda: reader.status().state == "reading")


def test_a_camera_that_is_plugged_in_again_is_found(
    start: StartReader, cameras: FakeCameras
) -> None:
    reader, frames = start()
    until(lambda: len(frames) >= 5)
    cameras.is_plugged = False
    until(lambda: reader.status().state == "silent")
    until(lambda: "camera 0 cannot be opened" in reader.status().text)
    cameras.is_plugged = True
    seen = len(frames)
    until(lambda: len(frames) >= seen + 5)
    until(lambda: reader.status().state == "reading")
    assert reader.status().opened == 2
    assert reader.status().timing.dropped == 0


def test_a_camera_that_is_away_is_asked_for_ever_less_often(
    start: StartReader, cameras: FakeCameras
) -> None:
    cameras.is_plugged = False
    waits: list[float] = []
    reader, _ = start()
    assert reader._worker is not None
    wait = reader._worker.stop.wait
    reader._worker.stop.wait = lambda seconds: waits.append(seconds) or wait(seconds)  # type: ignore[method-assign, func-returns-value]
    until(lambda: len(waits) >= 4)
    assert max(waits) == PATIENCE.longest_wait_s
    assert waits == sorted(waits)


def test_a_camera_that_hangs_in_its_driver_is_opened_anew(
    start: StartReader, cameras: FakeCameras
) -> None:
    reader, frames = start()
    until(lambda: len(frames) >= 5)
    cameras.hang()
    until(lambda: reader.status().state == "silent" and cameras.count("open") >= 2)
    assert "hangs in its driver" in reader.status().text
    cameras.go_on()
    seen = len(frames)
    until(lambda: len(frames) >= seen + 5 and reader.status().state == "reading")
    until(lambda: cameras.count("release") == cameras.count("open") - 1)


def test_a_hopeless_camera_does_not_gather_threads(
    start: StartReader, cameras: FakeCameras
) -> None:
    reader, _ = start()
    cameras.hang()
    until(lambda: reader.status() and cameras.count("open") == 4)
    until(lambda: reader._worker is not None and reader._worker.busy_since_s is not None)
    assert len(reader._left_behind) == 3


def test_row_19_empty_images_are_counted_and_a_camera_that_gives_no_others_is_at_fault(
    start: StartReader, cameras: FakeCameras
) -> None:
    reader, frames = start()
    until(lambda: len(frames) >= 5)
    cameras.is_empty = True
    until(lambda: reader.status().state == "silent")
    assert "an empty image" in reader.status().text
    assert reader.status().refused >= 5
    assert cameras.count("open") == 1
    cameras.is_empty = False
    until(lambda: reader.status().state == "reading")


def test_the_end_of_a_file_is_no_fault(start: StartReader, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "both", [1, 2, 3])
    reader, frames = start(str(folder))
    until(lambda: reader.status().state == "ended")
    assert reader.status().text == f"{folder} has ended"
    assert len(frames) == 3


def test_a_file_whose_last_images_are_refused_is_at_fault(
    start: StartReader, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "both", [1, 2, 3])
    reader, _ = start(str(folder), loop=True, sizes={"left": (280, 180)})
    until(lambda: reader.status().state == "silent")
    assert "has ended: left image is 16x24 pixels, expected 280x180" in reader.status().text


def test_an_exception_in_what_takes_the_frames_is_told(start: StartReader) -> None:
    reader, _ = start(on_frame=lambda frame: frame.no_such_field)
    until(lambda: reader.status().state == "crashed")
    assert "no_such_field" in reader.status().text


# Timing.


def test_rate_jitter_and_lost_images_are_told() -> None:
    timing = FrameTiming()
    rng = np.random.default_rng(1)
    stamps = np.arange(60) * 20e6 + rng.normal(0.0, 1e6, 60)
    for number, stamp in enumerate(stamps):
        if number not in (30, 40, 41):
            timing.observe(int(stamp))
    assert timing.rate_hz == pytest.approx(50.0 * 57 / 60, rel=0.02)
    assert timing.jitter_ms == pytest.approx(2**0.5, rel=0.3)
    assert timing.longest_ms == pytest.approx(60.0, rel=0.1)
    assert timing.dropped == 3
    assert timing.lost_share == pytest.approx(3 / 59)


def test_a_break_is_neither_a_period_nor_lost_images() -> None:
    timing = FrameTiming()
    for start_ns in (0, 10**12):
        timing.pause()
        for number in range(20):
            timing.observe(start_ns + number * 20_000_000)
    assert timing.dropped == 0
    assert timing.rate_hz == pytest.approx(50.0)


def test_a_camera_that_gets_slower_is_followed() -> None:
    timing = FrameTiming()
    for number in range(20):
        timing.observe(number * 20_000_000)
    for number in range(1, 200):
        timing.observe(380_000_000 + number * 66_000_000)
    assert timing.rate_hz == pytest.approx(15.15, rel=0.01)
    assert timing.dropped <= 20
