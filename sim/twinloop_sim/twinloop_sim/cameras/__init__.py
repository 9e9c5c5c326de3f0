# SPDX-License-Identifier: Apache-2.0
"""The twin's cameras: `open_eyes` gives a renderer, whichever works on the machine.

::

    eyes = open_eyes()                                # MuJoCo by EGL or OSMesa, else PyBullet
    eyes.dress(draw_appearance(seed, "train"))        # light, colours, patterns
    eyes.pose(q, ball_position, ball_quaternion)      # [24], [2, 3], [2, 4], world
    left, right = eyes.pair()                         # RGB [180, 280, 3]
    left = Sensor().expose(left, rng)                 # noise, exposure, blur
    eyes.labels("left")                               # [180, 280], for training and evaluation

    eyes = open_eyes(arm=True)                        # ramp, tray and arm are there too
    eyes.pose(joints, ball_position, ball_quaternion) # [33]: hand, arm, fingers
    eyes.image("tray")                                # what the tray's camera sees
"""

from __future__ import annotations

import logging

from twinloop_sim.cameras.appearance import FAMILIES, Appearance, Family, draw_appearance
from twinloop_sim.cameras.eyes import BACKGROUND, BALL0, BALL1, HAND, Eyes, draw_rig_error
from twinloop_sim.cameras.sensor import Sensor
from twinloop_sim.settings import SceneSettings, scene_settings

BACKENDS = ("auto", "mujoco", "pybullet")
_log = logging.getLogger(__name__)

__all__ = [
    "BACKENDS",
    "BACKGROUND",
    "BALL0",
    "BALL1",
    "FAMILIES",
    "HAND",
    "Appearance",
    "Eyes",
    "Family",
    "Sensor",
    "draw_appearance",
    "draw_rig_error",
    "open_eyes",
]


def open_eyes(
    backend: str = "auto",
    scene: SceneSettings | None = None,
    shadows: bool = True,
    samples: int = 0,
    arm: bool = False,
) -> Eyes:
    """Return a renderer of the cell's cameras.

    Args:
        backend: `mujoco`, which needs EGL or OSMesa, `pybullet`, or `auto`: the first that works.
        scene: default: config/twin/scene.yaml.
        shadows: False draws faster.
        samples: of a pixel, for smooth edges: 0 or 4; PyBullet knows none.
        arm: whether the cell has an arm.

    Raises:
        ValueError: an unknown backend.
        RuntimeError: MuJoCo is wanted, and there is no OpenGL.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    scene = scene or scene_settings()
    if backend != "pybullet":
        from twinloop_sim.cameras.gl import platform

        found = platform()
        if found is not None:
            from twinloop_sim.cameras.mujoco_eyes import MujocoEyes

            _log.info("cameras are drawn by MuJoCo through %s: %s", found.label, found.renderer)
            return MujocoEyes(scene, found, shadows, samples, arm)
        if backend == "mujoco":
            raise RuntimeError(
                "MuJoCo cannot draw here: neither EGL nor OSMesa works; install Mesa's libegl1 or "
                "libosmesa6, or take the backend pybullet"
            )
    from twinloop_sim.cameras.bullet_eyes import BulletEyes

    _log.info("cameras are drawn by PyBullet's software renderer")
    return BulletEyes(scene, shadows, arm)
