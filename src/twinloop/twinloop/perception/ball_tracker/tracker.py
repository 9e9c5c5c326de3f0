# SPDX-License-Identifier: Apache-2.0
"""Follows the two balls in a stereo pair's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop.paths import share
from twinloop.perception.ball_tracker import weights as weights_file
from twinloop.perception.ball_tracker.alignment import RigAlignment
from twinloop.perception.ball_tracker.detector import Detection, Detector, LearnedDetector
from twinloop.perception.ball_tracker.eyes import BALLS_IN_PALM_M, Eyes
from twinloop.perception.ball_tracker.fusion import Sight, calibrated, match
from twinloop.perception.ball_tracker.identity import Appearances, assign
from twinloop.perception.ball_tracker.motion import BallMotion, PalmMotion
from twinloop.perception.ball_tracker.settings import TrackerSettings
from twinloop.perception.ball_tracker.tracks import Tracks
from twinloop.perception.ball_tracker.votes import Blob
from twinloop.perception.camera_model import CameraModel, StereoModel
from twinloop.perception.mount import Mount
from twinloop.robots.description import hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import fixed_transform, palm_chain

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_ROOT = "world"
_CLEAR = 0.5  # visible fraction from which a ball's colour is learned
_FIRST_ALIGNED, _ALIGN_EVERY = 30, 3  # frames
_FORGET_S = 1.0  # after a longer gap between frames nothing is carried over


class BallTracker:
    """Two balls from pairs of images, one pair after the other.

    Args:
        stereo: calibration of the cameras.
        mount: where the left camera's optical frame is on the hand's mount.
        settings: default: as shipped.
        weights: folder of the network; default: the shipped one.
        detector: finds balls in images in the network's place.
        side: of the hand.

    Raises:
        ModelInvalid: the network cannot be used.
        ValueError: the mount is not of the left camera, or not on the hand's mount.
    """

    def __init__(
        self,
        stereo: StereoModel,
        mount: Mount,
        settings: TrackerSettings | None = None,
        weights: Path | str | None = None,
        detector: Detector | None = None,
        side: str = "right",
    ) -> None:
        self.settings = settings or TrackerSettings()
        self._eyes = Eyes(stereo)
        urdf = hand_urdf(side)
        self._root_from_left = fixed_transform(urdf, _ROOT, mount.parent) @ mount.transform
        self._palm = palm_chain(side)
        if detector is None:
            folder = share("models", "ball_tracker") if weights is None else Path(weights)
            detector = LearnedDetector(weights_file.load(folder), self.settings.least_area)
        self._detector = detector
        rectified = np.eye(4)
        rectified[:3, :3] = self._eyes.rectification
        self._ideal_from_root = rectified @ np.linalg.inv(self._root_from_left)
        self._alignment = RigAlignment(side, stereo.baseline_m)
        self._frames = self._aligned_eye = 0
        self.reset()

    def reset(self) -> None:
        """Forget the balls; what is known about the rig's place is kept."""
        self._tracks: list[BallMotion | None] = [None, None]
        self._unseen_s = np.full(2, np.inf)
        self._last = np.full((2, 3), np.nan)  # palm frame
        self._palm_motion = PalmMotion()
        self._appearances = Appearances()
        self._stamp_s = -np.inf

    def update(self, left_rgb: Image, right_rgb: Image, stamp_s: float, q: ArrayLike) -> Tracks:
        """Take in a pair of images.

        Args:
            left_rgb, right_rgb: [H, W, 3] of the cameras' sizes.
            stamp_s: of the exposure, s; later than that of the pair before.
            q: joint positions at that time [24], rad.

        Raises:
            ValueError: an image of another size or type, a stamp that is not later than the last
                one, or joints that are not 24 finite numbers; nothing is changed then.
        """
        _check_image(self._eyes.stereo.left, left_rgb)
        _check_image(self._eyes.stereo.right, right_rgb)
        joints = np.asarray(q, dtype=np.float64)
        if joints.shape != HAND24.lower.shape or not np.isfinite(joints).all():
            raise ValueError(f"q is {np.asarray(q).tolist()}, expected {len(HAND24.lower)} finite")
        dt = stamp_s - self._stamp_s
        if not (np.isfinite(stamp_s) and dt > 0.0):
            raise ValueError(
                f"stamp is {stamp_s} s after one of {self._stamp_s} s, expected a later one: "
                "reset the tracker where time starts anew"
            )
        palm_position, palm_rotation = (pose[0] for pose in self._palm.poses(joints[:2]))
        ideal_from_root = self._ideal_from_root
        middle = palm_position + palm_rotation @ BALLS_IN_PALM_M
        corners = self._eyes.corners(ideal_from_root[:3, :3] @ middle + ideal_from_root[:3, 3])
        windows = self._eyes.windows(left_rgb, right_rgb, corners)
        left, right = self._detector.detect(windows, corners)
        sights = match(
            self._calibrated(left),
            self._calibrated(right),
            self.settings.radius_m,
            self._eyes.baseline_m,
        )
        self._stamp_s = stamp_s
        self._align(stamp_s, joints, left, right, corners)
        self._palm_motion.add(stamp_s, palm_position, palm_rotation)
        palm = np.eye(4)
        palm[:3, :3], palm[:3, 3] = palm_rotation, palm_position
        palm_from_eye = np.linalg.inv(self._alignment.correction @ ideal_from_root @ palm)
        self._follow(sights, dt, np.asarray(palm_from_eye))
        return self._tell(stamp_s, palm)

    def _calibrated(self, found: Detection) -> list[Blob]:
        scale, floor_px = self.settings.deviation_scale, self.settings.deviation_floor_px
        return [calibrated(blob, scale, floor_px) for blob in found.blobs]

    def _align(
        self, stamp_s: float, q: Array, left: Detection, right: Detection, corners: Array
    ) -> None:
        """Correct the rig's place by what one eye sees, at first each frame, later now and then."""
        self._frames += 1
        first = self._frames == 1
        due = self._frames <= _FIRST_ALIGNED or self._frames % _ALIGN_EVERY == 0
        if not (self.settings.align and due):
            return
        for eye, masks in enumerate((left.masks, right.masks)):
            if masks is not None and (first or eye == self._aligned_eye):
                self._alignment.update(stamp_s, q, self._ideal_from_root, eye, masks, corners[eye])
        self._aligned_eye = 1 - self._aligned_eye

    def _follow(self, sights: list[Sight], dt: float, palm_from_eye: Array) -> None:
        """Move the tracks on by `dt` and let them take in what is seen."""
        settings = self.settings
        turn = palm_from_eye[:3, :3]
        places = [
            (turn @ s.position + palm_from_eye[:3, 3], turn @ s.covariance @ turn.T) for s in sights
        ]
        if dt > _FORGET_S:
            self._tracks = [None, None]
        for track in self._tracks:
            if track is not None:
                track.predict(dt, settings.acceleration_density, settings.decay_s)
        chosen = assign(
            sights, places, self._tracks, self._appearances, self._last, settings.radius_m
        )
        self._fraction = np.zeros(2)
        for ball, index in enumerate(chosen):
            self._unseen_s[ball] += dt if np.isfinite(dt) else 0.0
            if index is not None:
                self._take_in(ball, sights[index], *places[index], dt)
            # Times of frames are sums of floats; a thousandth of a frame decides nothing.
            late = self._unseen_s[ball] >= settings.stale_after_s - 1e-6
            track = self._tracks[ball]
            if track is not None and (late or track.worst_std > settings.most_std_m):
                self._tracks[ball] = track = None
            if track is not None:
                self._last[ball] = track.position

    def _take_in(self, ball: int, sight: Sight, place: Array, covariance: Array, dt: float) -> None:
        """Let a ball be where it is seen: a place [3] with covariance in the palm frame."""
        track = self._tracks[ball]
        if track is None:
            std = self.settings.initial_velocity_std
            self._tracks[ball] = BallMotion(place, covariance, std)
        else:
            if track.distance(place, covariance) > self.settings.surprise:
                track.disturb(dt, self.settings.hit_density)
            track.correct(place, covariance)
        self._unseen_s[ball] = 0.0
        self._fraction[ball] = sight.visible_fraction
        if sight.visible_fraction > _CLEAR:
            self._appearances.learn(ball, sight.color)

    def _tell(self, stamp_s: float, palm: Array) -> Tracks:
        velocity, covariance = np.zeros((2, 3)), np.zeros((2, 6, 6))
        carried = self._palm_motion.velocity(self._last)
        for ball, track in enumerate(self._tracks):
            if track is None:
                covariance[ball] = np.eye(6)
                continue
            velocity[ball] = track.velocity + carried[ball]
            covariance[ball] = track.covariance
            covariance[ball, :3, :3] += self.settings.bias_std_m**2 * np.eye(3)
        left_from_palm = np.linalg.inv(self._root_from_left) @ palm
        return Tracks(
            stamp_s,
            self._last.copy(),
            velocity,
            covariance,
            self._fraction,
            np.array([track is None for track in self._tracks]),
            self._last @ left_from_palm[:3, :3].T + left_from_palm[:3, 3],
            self._eyes.stereo.left,
            self.settings.radius_m,
        )


def _check_image(camera: CameraModel, image: Image) -> None:
    width, height = camera.size
    if image.dtype != np.uint8 or image.shape != (height, width, 3):
        raise ValueError(
            f"{camera.name} image is {image.dtype} {list(image.shape)}, expected uint8 "
            f"{[height, width, 3]}, as its calibration has it"
        )
