# SPDX-License-Identifier: Apache-2.0
"""Bad images, raw and compressed, bad camera models and bad joystick records."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from graph import hear, running
from hypothesis import given
from hypothesis import strategies as st
from messages import broken
from tally import TALLY, examples
from test_fuzz_node_messages import STAMP_NS, joints
from texts import spoiled_bytes
from twinloop.drivers.faults import DriverFault
from twinloop.drivers.joystick import Joystick, JoystickSettings
from twinloop.nodes.ball_tracker import BallTrackerNode
from twinloop.nodes.joint_messages import time_message
from twinloop.perception.camera_info import from_camera_info, to_camera_info
from twinloop.perception.camera_model import CameraModel, pinhole
from twinloop.perception.image_files import ImageRefused, decode_file, encode_file
from twinloop.perception.images import compress, to_array, to_message

SIZE = (64, 48)
PIXELS = {
    "rgb8": np.zeros((48, 64, 3), np.uint8),
    "mono8": np.zeros((48, 64), np.uint8),
    "16UC1": np.full((48, 64), 700, np.uint16),
    "32FC1": np.ones((48, 64), np.float32),
}


def image(encoding: str) -> Any:
    return to_message(PIXELS[encoding], encoding, Time(), "camera")


@examples(400)
@given(data=st.data())
def test_bad_images_are_refused(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(sorted(PIXELS)))
    message = data.draw(broken(lambda: image(encoding)))
    wanted = data.draw(st.sampled_from(["", "rgb8", encoding]))

    def read() -> None:
        found = to_array(message, wanted)
        assert found.shape[:2] == (message.height, message.width)

    TALLY.read("image", read, (ImageRefused,))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_bad_compressed_images_are_refused(kind: str) -> None:
    rng = np.random.default_rng(0)
    sound = encode_file(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), kind)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    @examples(300)
    @given(data=st.data())
    def try_out(data: st.DataObject) -> None:
        content = bytearray(data.draw(spoiled_bytes(sound)))
        if data.draw(st.integers(0, 4)) == 0 and len(content) > 24:
            # A size of gigabytes in a file of hundreds of bytes.
            content[16:24] = data.draw(st.binary(min_size=8, max_size=8))
        pixels = np.frombuffer(bytes(content), np.uint8)
        TALLY.read(f"image file: {kind}", lambda: decode_file(pixels), (ImageRefused,))

    try:
        try_out()
    finally:
        cv2.utils.logging.setLogLevel(level)


@examples(300)
@given(data=st.data())
def test_bad_compressed_messages_are_refused(data: st.DataObject) -> None:
    message = data.draw(broken(lambda: compress(PIXELS["rgb8"], "rgb8", Time(), "camera", "png")))
    TALLY.read("compressed image", lambda: to_array(message, "rgb8"), (ImageRefused,))


@examples(500)
@given(message=broken(lambda: to_camera_info(pinhole("left", SIZE, 60.0), Time(), "camera")))
def test_bad_camera_infos_are_refused(message: Any) -> None:
    TALLY.read("camera_info", lambda: from_camera_info(message, "left"), (ValueError,))


@pytest.fixture
def tracker() -> Iterator[BallTrackerNode]:
    with running(BallTrackerNode, nice=os.nice(0)) as node:
        yield node


@examples(300)
@given(data=st.data())
def test_the_tracker_refuses_bad_messages(tracker: BallTrackerNode, data: st.DataObject) -> None:
    stamp = time_message(STAMP_NS + data.draw(st.integers(0, 9)) * 10**8)
    cameras: dict[str, CameraModel] = {
        "left": pinhole("left", SIZE, 60.0),
        "right": pinhole("right", SIZE, 60.0, baseline_m=0.1),
    }
    eye = data.draw(st.sampled_from(["left", "right"]))
    topics = {
        "joint_states": joints,
        f"stereo/{eye}/camera_info": lambda: to_camera_info(cameras[eye], stamp, "camera"),
        f"stereo/{eye}/image_raw": lambda: to_message(PIXELS["rgb8"], "rgb8", stamp, "camera"),
    }
    topic = data.draw(st.sampled_from(sorted(topics)))
    message = data.draw(broken(topics[topic]))
    tracker._complaint = ""

    def reason() -> str:
        hear(tracker, topic, message)
        return tracker._complaint

    TALLY.ask("message to the tracker", reason, (topic,))
    for name, camera in cameras.items():
        hear(tracker, f"stereo/{name}/camera_info", to_camera_info(camera, stamp, "camera"))


@examples(300)
@given(
    records=st.lists(
        st.binary(max_size=20)
        | st.tuples(
            st.integers(0, 2**32 - 1),
            st.integers(-(2**15), 2**15 - 1),
            st.integers(0, 255),
            st.integers(0, 255),
        ).map(lambda record: struct.pack("IhBB", *record)),
        max_size=6,
    )
)
def test_bad_joystick_records_move_nothing(records: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "js0"
    if not path.exists():
        os.mkfifo(path)
    stick = Joystick(JoystickSettings(device=str(path)))
    stick.open()
    device = path.open("wb")
    device.write(b"".join(records))
    device.flush()

    def read() -> None:
        state = stick.read()
        assert all(-1.0 <= value <= 1.0 for value in state.axes)
        assert set(state.buttons) <= {0, 1}
        if not stick.is_allowed:
            assert not any(state.axes)
            assert not any(state.buttons)

    try:
        TALLY.read("joystick records", read, (DriverFault,), (str(path),))
    finally:
        device.close()
        stick.close()
