# SPDX-License-Identifier: Apache-2.0
"""The twin's cameras over real DDS: rates and stamps, what is drawn, and only what is wanted."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from twin_station import DEEP, PERIOD_NS, TICK_NS, Station, stamp_ns, start_node
from twinloop.paths import share
from twinloop.perception.camera_info import from_camera_info
from twinloop.perception.camera_model import load_camera, pinhole, save_camera
from twinloop.perception.images import to_array
from twinloop_sim.cameras import open_eyes
from twinloop_sim.nodes.messages import true_poses

from twinloop_interfaces.msg import SceneState

CAMERAS = "twinloop_sim.nodes.twin_cameras"
# Drawn without any randomness, so that images can be drawn again here.
PLAIN = {"noise": 0.0, "shot_noise": 0.0, "blur_px": 0.0, "exposure": 1.0}


class Listener:
    """Hears topics of a station; `heard` are (message, newest joint stamp then) of each."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.heard: dict[str, list[tuple[Any, int]]] = {}
        self.subscriptions: dict[str, Any] = {}

    def listen(self, topic: str, kind: type) -> None:
        heard = self.heard.setdefault(topic, [])
        self.subscriptions[topic] = self.station.node.create_subscription(
            kind, topic, lambda m: heard.append((m, self.station.now_ns)), DEEP
        )

    def cease(self, topic: str) -> None:
        self.station.node.destroy_subscription(self.subscriptions.pop(topic))
        self.heard[topic].clear()

    def wait(self, topic: str, count: int = 1) -> Any:
        self.station.spin_until(lambda: len(self.heard[topic]) >= count, 120.0)
        return self.heard[topic][-1][0]


def ended(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(60.0)


@pytest.fixture(scope="module")
def station() -> Iterator[Station]:
    station = Station(tracker=False)
    yield station
    station.close()


@pytest.fixture(scope="module")
def drawn(station: Station) -> Iterator[Station]:
    cameras = station.start(CAMERAS, use_sim_time=True, **PLAIN)
    yield station
    assert ended(cameras) == 0


@pytest.fixture
def listener(drawn: Station) -> Iterator[Listener]:
    listener = Listener(drawn)
    yield listener
    for topic in list(listener.subscriptions):
        listener.cease(topic)


def test_the_twin_leaves_the_balls_to_a_tracker_and_tells_the_truth(station: Station) -> None:
    station.spin(0.5)
    assert not station.record.balls
    assert station.record.truth
    assert not station.node.get_publishers_info_by_topic(f"{station.namespace}/balls")


def test_each_control_step_gets_a_fresh_pair(listener: Listener) -> None:
    for eye in ("left", "right"):
        listener.listen(f"stereo/{eye}/image_raw", Image)
    listener.wait("stereo/right/image_raw", 6)
    for heard in listener.heard.values():
        heard.clear()
    listener.station.spin(2.0)
    left, right = (
        [(stamp_ns(m), now) for m, now in listener.heard[f"stereo/{eye}/image_raw"]]
        for eye in ("left", "right")
    )
    stamps = [stamp for stamp, _ in left]
    assert {stamp % PERIOD_NS // TICK_NS for stamp in stamps} <= {0, 3, 7}
    assert (np.diff(stamps) > 0).all()
    # A best-effort sample may get lost on a busy machine, but not many.
    assert len(set(stamps) & {stamp for stamp, _ in right}) >= 0.9 * len(stamps)
    phases = [stamp % PERIOD_NS // TICK_NS for stamp in stamps]
    # Of 20. On a busy machine the ones that serve no step go first.
    assert phases.count(7) >= 15
    assert phases.count(7) >= max(phases.count(0), phases.count(3)) - 2
    for stamp, now in left:
        assert now >= stamp  # no image is from the future


def test_images_show_the_scene_of_their_stamp(listener: Listener) -> None:
    listener.listen("scene", SceneState)
    listener.listen("stereo/left/image_raw", Image)
    listener.wait("stereo/left/image_raw", 3)
    scenes = {stamp_ns(m): m for m, _ in listener.heard["scene"]}
    image = next(m for m, _ in listener.heard["stereo/left/image_raw"] if stamp_ns(m) in scenes)
    eyes = open_eyes()
    eyes.pose(*true_poses(scenes[stamp_ns(image)]))
    np.testing.assert_array_equal(to_array(image, "rgb8"), eyes.pair()[0])
    eyes.close()
    assert image.header.frame_id == "camera_left_optical"


def test_camera_infos_are_the_calibration_and_carry_the_stamps(listener: Listener) -> None:
    for topic in ("stereo/left", "stereo/right"):
        listener.listen(f"{topic}/camera_info", CameraInfo)
    listener.listen("stereo/left/image_raw", Image)
    listener.wait("stereo/left/image_raw", 4)
    for eye in ("left", "right"):
        message = listener.wait(f"stereo/{eye}/camera_info", 4)
        assert message.header.frame_id == f"camera_{eye}_optical"
        told, kept = (
            from_camera_info(message, eye),
            load_camera(share("config", "cameras", "twin", f"{eye}.yaml")),
        )
        assert told.size == kept.size
        np.testing.assert_allclose(told.k, kept.k)
        np.testing.assert_allclose(told.p, kept.p)
    images = {stamp_ns(m) for m, _ in listener.heard["stereo/left/image_raw"]}
    infos = {stamp_ns(m) for m, _ in listener.heard["stereo/left/camera_info"]}
    assert len(images & infos) >= 3


def test_depth_is_drawn_only_while_somebody_looks(listener: Listener) -> None:
    listener.listen("depth/camera_info", CameraInfo)  # told with each image
    listener.listen("stereo/left/image_raw", Image)
    listener.wait("stereo/left/image_raw", 5)
    assert not listener.heard["depth/camera_info"]
    listener.listen("depth/image_raw", Image)
    message = listener.wait("depth/image_raw", 3)
    assert (message.encoding, message.header.frame_id) == ("16UC1", "camera_depth_optical")
    depth = to_array(message, "16UC1")
    assert depth.shape == (240, 320)
    # The palm is about 40 cm off, the floor about twice as far.
    assert 330 < depth[120, 160] < 450
    assert 500 < depth[0, 0] < 900
    listener.cease("depth/image_raw")
    listener.station.spin(0.3)
    listener.heard["depth/camera_info"].clear()
    listener.station.spin(0.5)
    assert not listener.heard["depth/camera_info"]


def test_compressed_images_are_the_raw_ones(listener: Listener) -> None:
    topics = {"stereo/left/image_raw": Image, "stereo/left/image_raw/compressed": CompressedImage}
    for topic, kind in topics.items():
        listener.listen(topic, kind)
    for topic in topics:
        listener.wait(topic, 5)
    raw, small = ({stamp_ns(m): m for m, _ in listener.heard[topic]} for topic in topics)
    stamp = max(raw.keys() & small.keys())
    pixels, again = to_array(raw[stamp], "rgb8"), to_array(small[stamp], "rgb8")
    assert len(small[stamp].data) < pixels.size / 4
    assert np.abs(pixels.astype(int) - again).mean() < 3.0


def test_the_heartbeat_tells_backend_rate_and_cost(listener: Listener) -> None:
    listener.listen("stereo/left/image_raw", Image)
    listener.listen("/diagnostics", DiagnosticArray)
    name = f"{listener.station.namespace}/twin_cameras"

    def told() -> dict[str, str]:
        found = [s for m, _ in listener.heard["/diagnostics"] for s in m.status if s.name == name]
        return {v.key: v.value for v in found[-1].values} if found else {}

    listener.wait("stereo/left/image_raw", 12)
    listener.station.spin_until(lambda: float(told().get("rate_hz", 0.0)) > 9.0)
    assert told()["backend"].startswith(("mujoco (", "pybullet"))
    assert float(told()["pair_ms"]) > 0.0


def test_images_can_be_made_noisy_late_and_of_another_look(station: Station) -> None:
    changed = {"appearance": "test", "appearance_seed": 3, "rig_error_seed": 2, "latency_s": 0.15}
    cameras = start_node(
        CAMERAS,
        station.domain,
        f"{station.namespace}/other",
        {"scene": f"{station.namespace}/scene"},
        **changed,
        noise=0.05,
        rate=10.0,
    )
    listener = Listener(station)
    listener.listen("other/stereo/left/image_raw", Image)
    listener.listen("scene", SceneState)
    listener.wait("other/stereo/left/image_raw", 4)
    heard = listener.heard["other/stereo/left/image_raw"]
    assert {stamp_ns(m) % PERIOD_NS // TICK_NS for m, _ in heard} == {7}
    # A busy machine halts simulated time now and then, but not while most images wait.
    assert np.median([now - stamp_ns(m) for m, now in heard]) >= 120_000_000
    assert not {stamp_ns(m) for m, _ in heard} - {stamp_ns(m) for m, _ in listener.heard["scene"]}
    scenes = {stamp_ns(m): m for m, _ in listener.heard["scene"]}
    message, _ = heard[-1]
    eyes = open_eyes()
    eyes.pose(*true_poses(scenes[stamp_ns(message)]))
    assert np.abs(to_array(message, "rgb8").astype(int) - eyes.pair()[0]).mean() > 20.0
    eyes.close()
    assert ended(cameras) == 0


def test_a_calibration_of_another_size_is_refused(tmp_path: Path, station: Station) -> None:
    for name, size in (("left", (280, 180)), ("right", (320, 240)), ("depth", (320, 240))):
        save_camera(tmp_path / f"{name}.yaml", pinhole(name, size, 60.0, 0.12))
    refused = start_node(
        CAMERAS, station.domain, f"{station.namespace}/refused", calibration=tmp_path
    )
    assert refused.wait(60.0) == 2
