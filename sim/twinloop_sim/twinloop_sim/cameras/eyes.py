# SPDX-License-Identifier: Apache-2.0
"""What every renderer of the cell's cameras offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.perception.camera_model import CameraModel
from twinloop.robots.rotations import matrix_from_quaternion

from twinloop_sim.cameras.appearance import Appearance
from twinloop_sim.cameras.stage import Array, Shapes, camera_model, camera_poses
from twinloop_sim.settings import DEPTH, STEREO, TRAY, SceneSettings

Image = NDArray[np.uint8]
BACKGROUND, HAND, BALL0, BALL1 = range(4)  # labels
NEAR_M, FAR_M = 0.05, 2.5
FLOOR_HALF_M = 0.8
_MOST = 1e3  # of what can be drawn, rad and m
_LEAST_NORM = 0.5  # of an orientation


def draw_rig_error(
    seed: int, position_m: float = 0.002, angle_deg: float = 0.3
) -> NDArray[np.float64]:
    """Return a pose error [4, 4] for `Eyes.shift`: of these sizes, in directions of the seed."""
    rng = np.random.default_rng([seed, 7])
    way, axis = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    half = np.radians(angle_deg) / 2.0
    error = np.eye(4)
    error[:3, :3] = matrix_from_quaternion(np.array([np.cos(half), *(np.sin(half) * axis)]))
    error[:3, 3] = position_m * way
    return error


class Eyes(ABC):
    """The cameras on the hand's mount, looking at one cell; to be used from one thread.

    With the arm there are ramp, tray and arm too, a floor further down, and the tray's camera.

    Args:
        scene: what to draw.
        arm: whether the cell has an arm.

    Attributes:
        backend: what draws, such as `mujoco (EGL)`.
        scene: what is drawn.
        shapes: the robot's.
        cameras: nominal calibrations of the cameras by name: left, right and depth, and the tray's.
        floor_half_m: half of the floor's edge.
        appearance: how it looks at present.
    """

    backend: str

    def __init__(self, scene: SceneSettings, arm: bool = False) -> None:
        self.scene = scene
        self.shapes = Shapes(scene.side, arm)
        names = (*STEREO, DEPTH, TRAY) if arm else (*STEREO, DEPTH)
        self.cameras: dict[str, CameraModel] = {name: camera_model(scene, name) for name in names}
        self.floor_half_m = FLOOR_HALF_M * (2.0 if arm else 1.0)
        self._nominal = camera_poses(scene, arm)
        self._poses = dict(self._nominal)
        self.appearance = Appearance()

    @abstractmethod
    def pose(self, q: ArrayLike, ball_position: ArrayLike, ball_quaternion: ArrayLike) -> None:
        """Put everything where it is to be drawn.

        Args:
            q: joint positions [24], rad, of hand; [33] of hand, arm and fingers (m) with an arm.
            ball_position: centres [2, 3], m, world.
            ball_quaternion: orientations [2, 4], w first.

        Raises:
            ValueError: another shape, a value that is not finite or beyond all bounds, or no
                orientation.
        """

    @abstractmethod
    def dress(self, appearance: Appearance) -> None:
        """Change how the cell looks."""

    @abstractmethod
    def image(self, camera: str) -> Image:
        """Return what a camera sees, RGB [H, W, 3]."""

    @abstractmethod
    def pair(self) -> tuple[Image, Image]:
        """Return the left and the right image [H, W, 3]; quicker than one after the other."""

    @abstractmethod
    def depth(self, camera: str = DEPTH) -> NDArray[np.float32]:
        """Return distances along a camera's axis [H, W], m; NaN where there is nothing."""

    @abstractmethod
    def labels(self, camera: str) -> Image:
        """Return what is seen [H, W]: 0 background (with all else), 1 hand, 2 ball 0, 3 ball 1.

        For training and evaluation; nothing that tracks may look.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the renderer holds."""

    def shift(self, rig_error: ArrayLike) -> None:
        """Move the rig as a whole away from its nominal mount.

        Args:
            rig_error: pose of the moved left camera in the nominal one [4, 4]; the others go
                along. The identity takes an earlier shift back.

        Raises:
            ValueError: no rigid transform.
        """
        error = np.asarray(rig_error, dtype=np.float64)
        if error.shape != (4, 4) or not np.allclose(error[:3, :3] @ error[:3, :3].T, np.eye(3)):
            raise ValueError(f"rig_error must be a rigid transform [4, 4], got {error.tolist()}")
        left = self._nominal[STEREO[0]]
        moved = left @ error @ np.linalg.inv(left)
        self._poses = {
            name: pose if name == TRAY else moved @ pose for name, pose in self._nominal.items()
        }

    def camera_pose(self, camera: str) -> Array:
        """Return where a camera's optical frame truly is [4, 4], world.

        Raises:
            ValueError: no such camera.
        """
        if camera not in self.cameras:
            raise ValueError(f"no camera {camera!r}, there are {', '.join(self.cameras)}")
        return self._poses[camera]

    def checked(
        self, q: ArrayLike, ball_position: ArrayLike, ball_quaternion: ArrayLike
    ) -> tuple[Array, Array, Array]:
        """Return the arguments of `pose` as arrays; raises ValueError as it does."""
        given = {
            "q": (np.asarray(q, dtype=np.float64), (self.shapes.joints,)),
            "ball_position": (np.asarray(ball_position, dtype=np.float64), (2, 3)),
            "ball_quaternion": (np.asarray(ball_quaternion, dtype=np.float64), (2, 4)),
        }
        for name, (value, shape) in given.items():
            if value.shape != shape:
                raise ValueError(f"{name} has the shape {value.shape}, expected {shape}")
            if not np.abs(value).max() < _MOST:
                raise ValueError(f"{name} is {value.tolist()}, expected numbers below {_MOST:g}")
        joints, place, turn = (value for value, _ in given.values())
        if np.linalg.norm(turn, axis=-1).min() < _LEAST_NORM:
            raise ValueError(f"ball_quaternion is {turn.tolist()}, expected unit ones")
        return joints, place, turn
