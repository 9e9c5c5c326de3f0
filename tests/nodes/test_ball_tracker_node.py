# SPDX-License-Identifier: Apache-2.0
"""The ball tracker node over DDS: drawn images in, balls out, and what it makes of bad input."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from bag_processes import Observer, wait_until
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from twin_station import start_node
from twinloop.contract import stamp_of
from twinloop.dds import take_domain
from twinloop.nodes import qos
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.images import compress, to_array, to_message
from twinloop.robots.hand24 import HAND24
from twinloop_sim.cameras import open_eyes
from twinloop_sim.tracker_standin import into_palm
from twinloop_sim.twin import State, make_batch

from twinloop_interfaces.msg import EpisodeStatus, TrackedBallArray

DOMAIN, OTHER_DOMAIN = take_domain(), take_domain()
NAME = "/tracker"
PERIOD_NS = 33_333_333
EYES = ("left", "right")
LARGEST_M = 0.012


@dataclass(frozen=True)
class View:
    """What two cameras see, where the joints are, and where the balls truly are."""

    images: tuple[np.ndarray, np.ndarray]
    cameras: dict[str, Any]
    q: np.ndarray
    balls: np.ndarray


@pytest.fixture(scope="module")
def view() -> View:
    twin = make_batch("mujoco", 1, 1)
    state = twin.reset([5])
    single = State(**{name: value[0] for name, value in vars(state).items()})
    eyes = open_eyes()
    eyes.pose(single.q, single.ball_position, single.ball_quaternion)
    found = View(eyes.pair(), eyes.cameras, single.q, into_palm(state)[0][0])
    eyes.close()
    twin.close()
    return found


@dataclass
class Bench:
    """Plays the cameras and the hand, and keeps what the tracker says."""

    observer: Observer
    view: View
    stamp_ns: int = field(default_factory=time.time_ns)
    balls: list[TrackedBallArray] = field(default_factory=list)
    formats: tuple[str, str] | None = None  # of compressed images, left and right

    def __post_init__(self) -> None:
        node = self.observer.node
        node.create_subscription(TrackedBallArray, "balls", self.balls.append, qos.SENSOR)
        self._joints = node.create_publisher(JointState, "joint_states", qos.SENSOR)
        kind, name = (CompressedImage, "/compressed") if self.formats else (Image, "")
        self._images = {
            e: node.create_publisher(kind, f"stereo/{e}/image_raw{name}", qos.IMAGE) for e in EYES
        }
        self._infos = {
            e: node.create_publisher(CameraInfo, f"stereo/{e}/camera_info", qos.IMAGE) for e in EYES
        }

    def frame(
        self,
        images: Any = None,
        skew_ns: int = 0,
        with_joints: bool = True,
        step_ns: int = PERIOD_NS,
    ) -> None:
        """Publish a pair, `step_ns` after the one before."""
        self.stamp_ns += step_ns
        if with_joints:
            joints = JointState(name=list(HAND24.joint_names), position=self.view.q.tolist())
            joints.header.stamp = Time(nanoseconds=self.stamp_ns).to_msg()
            self._joints.publish(joints)
        for index, eye in enumerate(EYES):
            stamp = Time(nanoseconds=self.stamp_ns + index * skew_ns).to_msg()
            frame = f"camera_{eye}_optical"
            self._infos[eye].publish(to_camera_info(self.view.cameras[eye], stamp, frame))
            picture = (images or self.view.images)[index]
            if self.formats:
                message = compress(picture, "rgb8", stamp, frame, self.formats[index])
            else:
                message = to_message(picture, "rgb8", stamp, frame)
            self._images[eye].publish(message)
        time.sleep(0.05)

    def until(self, done: Any, **frame: Any) -> None:
        """Publish pairs until something has come about."""

        def go_on() -> bool:
            self.frame(**frame)
            return bool(done())

        wait_until(go_on)

    @property
    def is_stale(self) -> bool:
        return any(ball.stale for ball in self.balls[-1].balls)

    def value(self, name: str) -> int:
        return int(self.observer.values(NAME).get(name, "0"))


@pytest.fixture(scope="module")
def tracker() -> Iterator[None]:
    process = start_node("twinloop.nodes.ball_tracker", DOMAIN)
    yield
    process.send_signal(signal.SIGINT)
    assert process.wait(60.0) == 0


@pytest.fixture
def bench(view: View, tracker: None) -> Iterator[Bench]:
    with Observer(DOMAIN) as observer:
        made = Bench(observer, view)
        # The node's balls from the test before are old news.
        made.until(lambda: made.balls and NAME in observer.statuses and not made.is_stale)
        yield made


def test_balls_are_told_where_they_are_at_the_time_of_the_image(bench: Bench) -> None:
    message = bench.balls[-1]
    assert message.header.frame_id == "rh_palm"
    assert 0 <= bench.stamp_ns - stamp_of(message) < 20 * PERIOD_NS
    found = np.array([[b.position.x, b.position.y, b.position.z] for b in message.balls])
    errors = np.linalg.norm(found - bench.view.balls, axis=1)
    print(f"errors {1e3 * errors} mm")
    assert [ball.id for ball in message.balls] == [0, 1]
    assert errors.max() < LARGEST_M
    assert all(0.5 < ball.visible_fraction <= 1.0 for ball in message.balls)


def test_an_empty_scene_is_stale_and_nothing_else(bench: Bench) -> None:
    grey = (np.full((180, 280, 3), 128, np.uint8),) * 2
    seen_ns = stamp_of(bench.balls[-1])
    bench.until(lambda: all(ball.stale for ball in bench.balls[-1].balls), images=grey)
    stale_ns = next(stamp_of(m) for m in bench.balls if all(ball.stale for ball in m.balls))
    # 100 ms, and the frames that were under way.
    assert stale_ns - seen_ns < 100e6 + 4 * PERIOD_NS


def test_row_20_a_skewed_pair_is_dropped(bench: Bench) -> None:
    known = len(bench.balls)
    before = bench.value("skewed")
    bench.until(
        lambda: bench.value("skewed") > before, skew_ns=3 * PERIOD_NS, step_ns=7 * PERIOD_NS
    )
    assert len(bench.balls) <= known + 2


def test_row_19_an_image_of_another_size_is_refused(bench: Bench) -> None:
    small = tuple(image[::2] for image in bench.view.images)
    bench.until(lambda: bench.value("refused") > 0, images=small)
    wait_until(lambda: bench.observer.statuses[NAME].level == DiagnosticStatus.ERROR)
    assert "280x90 pixels, expected 280x180" in bench.observer.statuses[NAME].message
    known = len(bench.balls)
    bench.until(lambda: len(bench.balls) > known)
    bench.until(lambda: bench.observer.statuses[NAME].level == DiagnosticStatus.OK)


def test_without_joint_states_nothing_is_told(bench: Bench) -> None:
    before = bench.value("without_joints")
    bench.stamp_ns += 900_000_000
    time.sleep(0.1)
    known = len(bench.balls)
    bench.until(lambda: bench.value("without_joints") > before + 2, with_joints=False)
    assert len(bench.balls) == known


def test_a_clock_that_is_set_back_is_followed(bench: Bench) -> None:
    bench.frame(step_ns=-3_600_000_000_000)
    back_ns = bench.stamp_ns
    bench.until(lambda: stamp_of(bench.balls[-1]) < back_ns + 10**10)
    bench.until(lambda: bench.observer.statuses[NAME].level == DiagnosticStatus.OK)


def test_a_drawn_image_is_published_to_those_who_look(bench: Bench) -> None:
    pictures: list[Image] = []
    bench.observer.node.create_subscription(Image, "tracker/image_raw", pictures.append, qos.IMAGE)
    bench.until(lambda: pictures)
    picture = to_array(pictures[-1], "rgb8")
    assert picture.shape == (180, 280, 3)
    assert (picture != bench.view.images[0]).any(axis=2).sum() > 50


def test_a_reset_forgets_the_balls(bench: Bench) -> None:
    status = bench.observer.node.create_publisher(EpisodeStatus, "episode_status", qos.latched())
    bench.until(lambda: len(bench.balls) > 20)
    known, sure = len(bench.balls), bench.balls[-1].balls[0].covariance[21]
    time.sleep(0.5)
    status.publish(EpisodeStatus(phase=EpisodeStatus.RESETTING))
    time.sleep(0.5)
    bench.until(lambda: len(bench.balls) > known + 1)
    # What its speed is has to be found out anew.
    assert max(message.balls[0].covariance[21] for message in bench.balls[known:]) > 3.0 * sure


def test_compressed_images_will_do(view: View) -> None:
    with Observer(OTHER_DOMAIN) as observer:
        process = start_node("twinloop.nodes.ball_tracker", OTHER_DOMAIN, transport="compressed")
        bench = Bench(observer, view, formats=("jpeg", "png"))
        bench.until(lambda: bench.balls and not bench.is_stale)
        found = np.array(
            [[b.position.x, b.position.y, b.position.z] for b in bench.balls[-1].balls]
        )
        assert np.linalg.norm(found - view.balls, axis=1).max() < LARGEST_M
        process.send_signal(signal.SIGINT)
        assert process.wait(60.0) == 0


def test_a_mount_that_is_not_there_ends_the_node() -> None:
    process = start_node("twinloop.nodes.ball_tracker", DOMAIN, mount="absent.yaml")
    assert process.wait(60.0) == 2
