# SPDX-License-Identifier: Apache-2.0
"""Twin cameras node: draws the twin's scene for a stereo pair, a depth and a tray camera.

A process of its own, so that drawing never delays the simulation.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.camera_topics import CameraTopics
from twinloop.nodes.joint_messages import nanoseconds
from twinloop.nodes.parameters import ParameterSpec
from twinloop.paths import share
from twinloop.perception.camera_model import CameraModel, load_camera

from twinloop_interfaces.msg import SceneState
from twinloop_sim.cameras import (
    BACKENDS,
    FAMILIES,
    Eyes,
    Sensor,
    draw_appearance,
    draw_rig_error,
    open_eyes,
)
from twinloop_sim.nodes.frame_choice import FrameChoice
from twinloop_sim.nodes.messages import true_poses
from twinloop_sim.settings import DEPTH, STEREO, TRAY, SceneSettings, scene_settings
from twinloop_sim.tracker_standin import FRAME_TICKS

_TOPICS = {STEREO[0]: "stereo/left", STEREO[1]: "stereo/right", DEPTH: "depth"}
_TRAY_TOPICS = {TRAY: "tray"}
_NOMINAL = "nominal"
_SENSOR = Sensor()
_SPACING_TICKS = int(np.diff(FRAME_TICKS).min())
_STEPS_HZ = 10.0
_WAIT_S = 0.002  # how often images that are held back are looked at
_RATE_OVER = 31  # exposures of which the rate is told
_SILENT_S = 1.0
_MOST_SAID = 300  # characters of a complaint


class TwinCamerasNode(Node):
    """Wires Eyes and a Sensor to the scene that the twin tells, and to the topics of the cameras.

    Exposures that serve a control step are all drawn; others while there is time.
    """

    parameters = (
        ParameterSpec(
            "backend", "auto", "What draws; auto: the first that works", choices=BACKENDS
        ),
        ParameterSpec(
            "rate", 30.0, "Pairs wanted in a simulated second: 10, 20 or 30", _STEPS_HZ, 30.0
        ),
        ParameterSpec("lockstep", False, "Leave out no pair: simulated time waits for them"),
        ParameterSpec("arm", False, "The twin has an arm: draw it, and serve the tray's camera"),
        ParameterSpec("shadows", True, "Draw shadows; MuJoCo takes thrice as long"),
        ParameterSpec("samples", 0, "Samples of a pixel: 0 or 4, for smooth edges", 0, 4),
        ParameterSpec(
            "calibration",
            "",
            "Folder of left, right, depth and tray.yaml; empty: the twin's nominal ones",
        ),
        ParameterSpec(
            "appearance", _NOMINAL, "Family of light and colours", choices=(_NOMINAL, *FAMILIES)
        ),
        ParameterSpec("appearance_seed", 0, "Which one of its family", 0, 2**31 - 1),
        ParameterSpec(
            "rig_error_seed", -1, "Direction of a pose error of the rig; -1: none", -1, 2**31 - 1
        ),
        ParameterSpec("rig_error_m", 0.002, "Its size [m]", 0.0, 0.1),
        ParameterSpec("rig_error_deg", 0.3, "Its angle [deg]", 0.0, 10.0),
        ParameterSpec("noise", _SENSOR.noise, "In the dark, of full scale", 0.0, 1.0),
        ParameterSpec("shot_noise", _SENSOR.shot_noise, "Added at full scale", 0.0, 1.0),
        ParameterSpec("exposure", 1.0, "Factor on the light", 0.01, 10.0),
        ParameterSpec("blur_px", _SENSOR.blur_px, "Of the lens [px]", 0.0, 10.0),
        ParameterSpec("depth_noise", _SENSOR.depth_noise, "Of a depth at 1 m [m]", 0.0, 1.0),
        ParameterSpec(
            "latency_s", 0.0, "Least time from exposure to image, simulated [s]", 0.0, 1.0
        ),
        ParameterSpec("seed", 0, "Of the noise", 0, 2**31 - 1),
        ParameterSpec("jpeg_quality", 90, "Of compressed images", 1, 100),
    )

    def __init__(self) -> None:
        super().__init__("twin_cameras")
        self._eyes: Eyes | None = None

    def configure(self) -> None:
        scene = scene_settings()
        names = {**_TOPICS, **(_TRAY_TOPICS if self.param("arm") else {})}
        calibrations = {name: self._calibration(name, scene) for name in names}
        eyes = open_eyes(
            self.param("backend"),
            scene,
            self.param("shadows"),
            4 * (self.param("samples") > 0),
            self.param("arm"),
        )
        self._dress(eyes)
        self.get_logger().info(f"cameras are drawn by {eyes.backend}")
        self._eyes = eyes
        self._sensor = Sensor(
            self.param("noise"),
            self.param("shot_noise"),
            self.param("exposure"),
            self.param("blur_px"),
            self.param("depth_noise"),
        )
        self._rng = np.random.default_rng(self.param("seed"))
        self._choice = FrameChoice(
            int(self.param("rate") / _STEPS_HZ),
            _SPACING_TICKS * scene.tick_s,
            takes_all=self.param("lockstep"),
        )
        self._pair_ms = 0.0
        self._heard_s = 0.0
        self._refused, self._complaint = 0, ""
        self._stamps: deque[int] = deque(maxlen=_RATE_OVER)
        self._held: deque[tuple[float, str, NDArray[Any], int]] = deque()
        self._topics = {
            name: CameraTopics(
                self,
                topic,
                "tray_camera_optical" if name == TRAY else f"camera_{name}_optical",
                calibrations[name],
                self.param("jpeg_quality"),
            )
            for name, topic in names.items()
        }
        scenes = copy(qos.SENSOR)
        if not self.param("lockstep"):
            # One control step's exposures, and nothing older: one of them serves a step.
            scenes.depth = len(FRAME_TICKS)
        self._scene = self.create_subscription(
            SceneState, "scene", self.guarded(self._on_scene), scenes
        )
        self._holding = self.create_timer(
            _WAIT_S, self.guarded(self._release), clock=self.steady_clock, autostart=False
        )

    def _dress(self, eyes: Eyes) -> None:
        family = self.param("appearance")
        if family != _NOMINAL:
            eyes.dress(draw_appearance(self.param("appearance_seed"), family))
        seed = self.param("rig_error_seed")
        if seed >= 0:
            size = self.param("rig_error_m"), self.param("rig_error_deg")
            eyes.shift(draw_rig_error(seed, *size))

    def _calibration(self, name: str, scene: SceneSettings) -> CameraModel:
        folder = self.param("calibration")
        path = (Path(folder) if folder else share("config", "cameras", "twin")) / f"{name}.yaml"
        camera, drawn = load_camera(path), scene.cameras[name].size
        if camera.size != drawn:
            raise ValueError(
                f"{path} is of a camera of {camera.size[0]}x{camera.size[1]} pixels, "
                f"{drawn[0]}x{drawn[1]} are drawn: see config/twin/scene.yaml"
            )
        return camera

    def activate(self) -> None:
        # What is alive now stays out of later collections, which would delay an image.
        gc.collect()
        gc.freeze()

    def deactivate(self) -> None:
        if self._eyes is not None:
            self._held.clear()
            self._holding.cancel()

    def cleanup(self) -> None:
        self.destroy_subscription(self._scene)
        self.destroy_timer(self._holding)
        for topics in self._topics.values():
            topics.destroy()
        self.close()

    def close(self) -> None:
        if self._eyes is not None:
            self._eyes.close()
            self._eyes = None

    def health(self) -> Health:
        if self._eyes is None:
            return Health(WARN, "not configured")
        stamps, rate_hz = self._stamps, 0.0
        if len(stamps) > 1 and stamps[-1] > stamps[0]:
            rate_hz = (len(stamps) - 1) * 1e9 / (stamps[-1] - stamps[0])
        values = {
            "backend": self._eyes.backend,
            "rate_hz": f"{rate_hz:.1f}",
            "pair_ms": f"{self._pair_ms:.1f}",
            "left_out": str(self._choice.left_out),
            "refused": str(self._refused),
        }
        if self._complaint:
            return Health(WARN, self._complaint, values)
        if self.is_active and time.monotonic() - self._heard_s > _SILENT_S:
            return Health(WARN, "waits for the twin's scene", values)
        return Health(OK, "drawing" if rate_hz else "nobody looks", values)

    def _on_scene(self, message: SceneState) -> None:
        eyes, now_s = self._eyes, time.monotonic()
        if eyes is None or not self.is_active:
            return
        self._heard_s = now_s
        stamp_ns = nanoseconds(message.header.stamp)
        if stamp_ns < 0:
            self._refuse(f"its stamp is {stamp_ns} ns, expected none before 0")
            return
        if not self._choice.takes(stamp_ns, message.exposures_left, now_s):
            return
        wants_pair = any(self._topics[name].has_listeners for name in STEREO)
        wants_depth = self._topics[DEPTH].has_listeners
        # The tray is looked into once a control step: what lies there does not hurry.
        is_last = message.exposures_left == 0
        wants_tray = TRAY in self._topics and is_last and self._topics[TRAY].has_listeners
        if not (wants_pair or wants_depth or wants_tray):
            return
        try:
            eyes.pose(*true_poses(message))
        except ValueError as error:
            self._refuse(str(error))
            return
        self._complaint = ""
        due_s = now_s + self.param("latency_s") * self._choice.slowness
        if wants_pair:
            for name, image in zip(STEREO, eyes.pair(), strict=True):
                self._publish(due_s, name, self._sensor.expose(image, self._rng), stamp_ns)
            self._stamps.append(stamp_ns)
            took_ms = 1e3 * (time.monotonic() - now_s)
            self._pair_ms += 0.1 * (took_ms - self._pair_ms) if self._pair_ms else took_ms
        if wants_depth:
            depth = self._sensor.sense_depth(eyes.depth(), self._rng)
            self._publish(due_s, DEPTH, depth, stamp_ns)
        if wants_tray:
            image = self._sensor.expose(eyes.image(TRAY), self._rng)
            self._publish(due_s, TRAY, image, stamp_ns)
        self._choice.drew(time.monotonic() - now_s)

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        self._complaint = f"scene refused: {reason}"[:_MOST_SAID]

    def _publish(self, due_s: float, name: str, image: NDArray[Any], stamp_ns: int) -> None:
        """Publish an image when it is due on the steady clock."""
        if self.param("latency_s") == 0.0:
            self._topics[name].publish(image, _encoding(name), stamp_ns)
            return
        self._held.append((due_s, name, image, stamp_ns))
        if len(self._held) == 1:
            self._holding.reset()

    def _release(self) -> None:
        while self._held and self._held[0][0] <= time.monotonic():
            _, name, image, stamp_ns = self._held.popleft()
            self._topics[name].publish(image, _encoding(name), stamp_ns)
        if not self._held:
            self._holding.cancel()


def _encoding(name: str) -> str:
    return "16UC1" if name == DEPTH else "rgb8"


def main() -> None:
    run(TwinCamerasNode)
