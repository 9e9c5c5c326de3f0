# SPDX-License-Identifier: Apache-2.0
"""Bad depth images and cameras to heap segmentation, bad training data of grasps and heaps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grasp_views
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from graph import hear, running
from hypothesis import given
from hypothesis import strategies as st
from messages import broken
from sensor_msgs.msg import Image
from tally import TALLY, examples
from texts import spoiled_bytes
from twinloop.grasping import data as grasp_data
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.grasping.segmentation import data, segment
from twinloop.nodes import qos
from twinloop.nodes.heap_segmenter import HeapSegmenterNode
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.images import to_message

CAMERA = grasp_views.camera(52.5, (64, 48))
DEPTH = grasp_views.table([(0.05, -0.03, 0.08, 0.09, 0.05)], model=CAMERA)
NAMES = tuple(reason.value for reason in Reason)
TOPICS = {
    "depth/image_raw": lambda: to_message(DEPTH, "32FC1", Time(), "depth_optical"),
    "depth/camera_info": lambda: to_camera_info(CAMERA, Time(), "depth_optical"),
}


@pytest.fixture
def segmenter() -> Iterator[HeapSegmenterNode]:
    with running(HeapSegmenterNode) as node:
        # Nothing is segmented that nobody wants.
        node.create_subscription(Image, "segments/image_raw", lambda _: None, qos.IMAGE)
        while not node._picture.get_subscription_count():
            time.sleep(0.01)
        yield node


def test_bad_images_and_cameras_are_refused(segmenter: HeapSegmenterNode) -> None:
    @examples(200)
    @given(draws=st.data())
    def try_out(draws: st.DataObject) -> None:
        spoilt = draws.draw(st.sampled_from(sorted(TOPICS)))
        message: Any = draws.draw(broken(TOPICS[spoilt]))

        def reason() -> str:
            for topic in reversed(TOPICS):  # a camera, then its image
                hear(segmenter, topic, message if topic == spoilt else TOPICS[topic]())
            refusal = segmenter._refusal
            assert not refusal or refusal.partition(":")[0] in NAMES
            return refusal

        TALLY.ask("depth image to segment", reason)

    try_out()


@examples(100)
@given(draws=st.data())
def test_bad_matrices_of_a_camera_are_refused(draws: st.DataObject) -> None:
    matrix = CAMERA.k.copy()
    row, column = draws.draw(st.integers(0, 2)), draws.draw(st.integers(0, 2))
    matrix[row, column] = draws.draw(st.floats(allow_nan=True, allow_infinity=True))
    TALLY.read("camera matrix", lambda: segment(DEPTH, matrix), (GraspRefused,))


@pytest.mark.parametrize(
    ("read", "arrays"),
    [
        (
            data.load,
            {
                "heights": np.zeros((1, 240, 320), np.int16),
                "labels": np.zeros((1, 240, 320), np.uint8),
            },
        ),
        (
            grasp_data.load,
            {
                "crops": np.zeros((2, 32, 48), np.uint8),
                "numbers": np.zeros((2, 2), np.float32),
                "labels": np.zeros(2, np.float32),
            },
        ),
    ],
    ids=["segmentation", "grasps"],
)
def test_spoilt_data_are_refused(
    read: Callable[[Path, str], Any], arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "train-00000.npz"
    np.savez_compressed(path, **arrays)
    sound = path.read_bytes()
    assert len(read(tmp_path, "train")) > 0

    @examples(100)
    @given(content=spoiled_bytes(sound))
    def try_out(content: bytes) -> None:
        path.write_bytes(content)
        TALLY.read("training data", lambda: read(tmp_path, "train"), (ValueError,))

    try_out()
