# SPDX-License-Identifier: Apache-2.0
"""Writes the calibration that the twin's cameras would get if there were no errors.

`python -m twinloop_sim.cameras.nominal config/cameras/twin` makes the files of that folder anew,
after the scene or the robot's description has changed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from twinloop.perception.camera_model import save_camera
from twinloop.perception.mount import mount_from_urdf, save_mount
from twinloop.robots.description import hand_urdf, joint_prefix

from twinloop_sim.cameras.stage import camera_model
from twinloop_sim.settings import DEPTH, STEREO, TRAY, SceneSettings, scene_settings

MOUNT = "mount.yaml"
_HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# Made by `python -m twinloop_sim.cameras.nominal`: the twin's camera without any error.
"""


def write_nominal(folder: Path, scene: SceneSettings) -> None:
    """Write `left`, `right`, `depth`, `tray` and `mount.yaml` of a scene."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*STEREO, DEPTH, TRAY):
        save_camera(folder / f"{name}.yaml", camera_model(scene, name))
    link = scene.cameras[STEREO[0]].link
    if link is None:
        raise ValueError(f"camera {STEREO[0]} of the scene is on no link, expected one")
    forearm = f"{joint_prefix(scene.side)}forearm"
    save_mount(folder / MOUNT, mount_from_urdf(hand_urdf(scene.side), forearm, link))
    for path in folder.glob("*.yaml"):
        path.write_text(_HEADER + path.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    write_nominal(Path(sys.argv[1]), scene_settings())
