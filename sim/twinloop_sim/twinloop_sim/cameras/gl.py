# SPDX-License-Identifier: Apache-2.0
"""Finds out how MuJoCo can draw without a display: by EGL, by OSMesa, or not at all.

A broken driver may end the process that tries it, so another one tries:
`python -m twinloop_sim.cameras.gl egl` draws a ball and prints who drew it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mujoco
import numpy as np

_PLATFORMS = {"egl": "EGL", "osmesa": "OSMesa"}
_PATIENCE_S = 30.0
_OFF = ("disable", "disabled", "off", "false", "0")
_BALL = '<mujoco><worldbody><geom size="1"/></worldbody></mujoco>'
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Platform:
    """A way to draw that works here.

    Attributes:
        name: `egl` or `osmesa`, as in MUJOCO_GL.
        label: for people.
        renderer: what OpenGL says that it is.
    """

    name: str
    label: str
    renderer: str


@lru_cache(maxsize=1)
def platform() -> Platform | None:
    """Return the way to draw, tried once per process; None where there is none.

    Where MUJOCO_GL names one, that one alone is tried; where it is `off`, none.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted in _OFF:
        _log.info("no OpenGL: MUJOCO_GL is %r", wanted)
        return None
    for name, label in _PLATFORMS.items():
        if wanted in _PLATFORMS and name != wanted:
            continue
        renderer = _tried(name)
        if renderer:
            return Platform(name, label, renderer)
    return None


def open_context(name: str, width: int, height: int) -> Any:
    """Return an OpenGL context of a platform, made current in this thread."""
    # Read when drawing begins, by MuJoCo, and on import, by PyOpenGL.
    os.environ["MUJOCO_GL"] = name
    # Mesa's software renderer is quickest at images of this size without threads of its own.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if name == "egl":
        from mujoco.egl import GLContext
    else:
        from mujoco.osmesa import GLContext
    context = GLContext(width, height)
    context.make_current()
    return context


def _tried(name: str) -> str:
    """Return what draws on a platform, "" where nothing does."""
    command = [sys.executable, "-m", __name__, name]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop("PYOPENGL_PLATFORM", None)
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.info("no %s: %s", _PLATFORMS[name], error)
        return ""
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing said"]
        _log.info("no %s: exit code %d, %s", _PLATFORMS[name], done.returncode, said[-1])
        return ""
    return done.stdout.strip()


def _draw_ball(name: str) -> str:
    """Draw a ball on a platform and return its renderer's name.

    Raises:
        RuntimeError: the image is empty.
    """
    context = open_context(name, 32, 32)
    from OpenGL import GL  # type: ignore[import-untyped]

    model = mujoco.MjModel.from_xml_string(_BALL)
    scene = mujoco.MjvScene(model, 10)
    canvas = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, canvas)
    data, camera, option = mujoco.MjData(model), mujoco.MjvCamera(), mujoco.MjvOption()
    mujoco.mj_forward(model, data)
    mujoco.mjv_defaultFreeCamera(model, camera)
    every = mujoco.mjtCatBit.mjCAT_ALL.value
    mujoco.mjv_updateScene(model, data, option, None, camera, every, scene)
    rect, image = mujoco.MjrRect(0, 0, 32, 32), np.zeros((32, 32, 3), np.uint8)
    mujoco.mjr_render(rect, scene, canvas)
    mujoco.mjr_readPixels(image, None, rect, canvas)
    renderer = GL.glGetString(GL.GL_RENDERER).decode()
    canvas.free()
    context.free()
    if not image.any():
        raise RuntimeError(f"{renderer} drew nothing")
    return renderer


if __name__ == "__main__":
    print(_draw_ball(sys.argv[1]))
