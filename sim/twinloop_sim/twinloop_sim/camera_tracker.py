# SPDX-License-Identifier: Apache-2.0
"""Tracks the balls of in-process twins in drawn images, in the place of the tracker's stand-in.

What a live system does in three processes is done in one: draw, sense, track, deliver. Exposures
and delays are the stand-in's, and equal seeds give equal results whatever was before and beside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from twinloop.paths import share
from twinloop.perception.ball_tracker import BallTracker, Tracks
from twinloop.perception.camera_model import StereoModel, load_camera
from twinloop.perception.mount import load_mount

from twinloop_sim.cameras import Eyes, Sensor, draw_appearance, draw_rig_error, open_eyes
from twinloop_sim.settings import STEREO, SceneSettings
from twinloop_sim.tracker_standin import DELIVERY_TICKS, FRAME_TICKS, PERIOD_TICKS, Sample
from twinloop_sim.twin import State

Array = NDArray[np.float64]

_WARM_PERIODS = 3  # of frames of the start, before time zero: cameras run before episodes do
_FIRST_S = 1.0  # stamp of time zero


class CameraSettings(BaseModel):
    """How cameras see, and what tracks.

    Attributes:
        backend: what draws: see `open_eyes`.
        appearance: `nominal`, or a family from which each episode's seed draws its look.
        rig_error_m, rig_error_deg: by which the rig is off its calibration, in directions that
            each episode's seed draws.
        noise, shot_noise, exposure, blur_px: see `Sensor`.
        delivery_ticks: from an exposure to its balls; all of a control period come within it.
        weights: folder of the tracker's network; "" for the shipped one.
        calibration: folder of left, right and mount.yaml; "" for the twin's nominal ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    backend: str = "auto"
    appearance: Literal["nominal", "train", "tune", "test"] = "nominal"
    rig_error_m: float = Field(default=0.0, ge=0.0, le=0.1)
    rig_error_deg: float = Field(default=0.0, ge=0.0, le=10.0)
    noise: float = Field(default=Sensor().noise, ge=0.0, le=1.0)
    shot_noise: float = Field(default=Sensor().shot_noise, ge=0.0, le=1.0)
    exposure: float = Field(default=1.0, gt=0.0, le=10.0)
    blur_px: float = Field(default=Sensor().blur_px, ge=0.0, le=10.0)
    delivery_ticks: int = Field(default=DELIVERY_TICKS, ge=0, le=PERIOD_TICKS - FRAME_TICKS[-1])
    weights: str = ""
    calibration: str = ""


class CameraTracker:
    """A stereo rig and a ball tracker for each of N hands; offers what `TrackerStandin` does.

    Args:
        hands: how many.
        scene: what is drawn.
        joint_offset: what encoders tell, less where the joints are [N, 24], rad; trackers are
            told that. Read at each exposure.
        settings: of cameras and tracker.
        arm: whether the cells have one.
    """

    def __init__(
        self,
        hands: int,
        scene: SceneSettings,
        joint_offset: Array,
        settings: CameraSettings,
        arm: bool = False,
    ) -> None:
        self.hands = hands
        self.settings = settings
        self.offset_m = np.zeros((hands, 3))  # by which balls are drawn beside, world axes
        self._joint_offset = joint_offset
        self._tick_s = scene.tick_s
        folder = Path(settings.calibration or share("config", "cameras", "twin"))
        left, right = (load_camera(folder / f"{name}.yaml") for name in STEREO)
        self._stereo, self._mount = StereoModel(left, right), load_mount(folder / "mount.yaml")
        self._sensor = Sensor(
            settings.noise, settings.shot_noise, settings.exposure, settings.blur_px
        )
        # Hands that look alike share a renderer.
        count = 1 if settings.appearance == "nominal" else hands
        self._eyes = [open_eyes(settings.backend, scene, arm=arm) for _ in range(count)]
        self._trackers: dict[int, BallTracker] = {}
        self._shifts = np.tile(np.eye(4), (hands, 1, 1))
        self._rngs = [np.random.default_rng(0) for _ in range(hands)]
        self._begin = np.zeros(hands, dtype=np.int64)  # tick of each hand's time zero
        self._pending: list[Sample] = []

    def _new_tracker(self) -> BallTracker:
        weights = Path(self.settings.weights) if self.settings.weights else None
        return BallTracker(self._stereo, self._mount, weights=weights)

    def reset(self, seeds: ArrayLike, state: State, tick: int, hands: list[int]) -> Sample:
        """Start anew with balls that have been at rest; see `TrackerStandin.reset`."""
        settings = self.settings
        self._pending.clear()
        self._begin[hands] = tick
        for hand, seed in zip(hands, np.atleast_1d(seeds).tolist(), strict=True):
            self._rngs[hand] = np.random.default_rng([seed, 8])
            if settings.rig_error_m or settings.rig_error_deg:
                error = draw_rig_error(seed, settings.rig_error_m, settings.rig_error_deg)
                self._shifts[hand] = error
            if settings.appearance != "nominal":
                self._eyes[hand].dress(draw_appearance(seed, settings.appearance))
            # What a tracker has learned of its rig must not leak into other episodes.
            self._trackers[hand] = self._new_tracker()
        tracks: dict[int, Tracks] = {}
        for period in range(-_WARM_PERIODS, 0):
            for phase in FRAME_TICKS:
                last = tick + period * PERIOD_TICKS + phase
                tracks = {hand: self._look(hand, state, last) for hand in hands}
        return self._sample(last, tracks)

    def is_due(self, tick: int) -> bool:
        """Tell whether a frame is exposed at a tick."""
        return tick % PERIOD_TICKS in FRAME_TICKS

    def expose(self, state: State, tick: int) -> None:
        """Take a frame of the present states [N]; it is delivered later."""
        tracks = {hand: self._look(hand, state, tick) for hand in range(self.hands)}
        self._pending.append(self._sample(tick, tracks))

    def deliver(self, tick: int) -> Sample | None:
        """Return the sample that becomes available at `tick`, if one does."""
        if self._pending and self._pending[0].tick + self.settings.delivery_ticks <= tick:
            return self._pending.pop(0)
        return None

    def state(self, hands: list[int]) -> Any:
        """Refused: trackers cannot be saved.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a cell with cameras cannot be saved; one with the stand-in can")

    def set_state(self, state: Any, tick: int, hands: list[int]) -> None:
        """Refused, as `state` is."""
        self.state(hands)

    def close(self) -> None:
        """Free the renderers."""
        for eyes in self._eyes:
            eyes.close()

    def _look(self, hand: int, state: State, tick: int) -> Tracks:
        """Draw what a hand's cameras see, and track."""
        eyes: Eyes = self._eyes[hand % len(self._eyes)]
        eyes.shift(self._shifts[hand])
        seen = state.ball_position[hand] + self.offset_m[hand]
        eyes.pose(state.joints[hand], seen, state.ball_quaternion[hand])
        left, right = (self._sensor.expose(image, self._rngs[hand]) for image in eyes.pair())
        stamp_s = _FIRST_S + (tick - int(self._begin[hand])) * self._tick_s
        encoders = state.q[hand] + self._joint_offset[hand]
        return self._trackers[hand].update(left, right, stamp_s, encoders)

    def _sample(self, tick: int, tracks: dict[int, Tracks]) -> Sample:
        """Return a sample of all hands; those without tracks are not to be looked at."""
        hands = self.hands
        sample = Sample(
            tick,
            np.zeros((hands, 2, 3)),
            np.zeros((hands, 2, 3)),
            np.zeros((hands, 2, 6, 6)),
            np.zeros((hands, 2)),
            np.ones((hands, 2), dtype=np.bool_),
        )
        for hand, track in tracks.items():
            # A ball that was never seen has no place, and is stale.
            sample.position[hand] = np.nan_to_num(track.position)
            sample.velocity[hand] = track.velocity
            sample.covariance[hand] = track.covariance
            sample.visible_fraction[hand] = track.visible_fraction
            sample.stale[hand] = track.stale
        return sample
