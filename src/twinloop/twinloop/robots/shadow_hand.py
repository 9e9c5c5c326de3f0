# SPDX-License-Identifier: Apache-2.0
"""Shadow's Dexterous Hand, right: the joints of `hand24`, moved by twenty motors.

Of each finger but the thumb one motor, J0, pulls the last two joints, J1 at the tip and J2 before
it: their sum is what it commands, and J1 is never bent further than J2. Ranges are those of
`hand24`, which lie within the maker's.
"""

from __future__ import annotations

import numpy as np

from twinloop.robots.base import Robot
from twinloop.robots.hand24 import HAND24

# Joints that one motor pulls: at the tip of a finger, and before it.
COUPLED = tuple((f"rh_{finger}J1", f"rh_{finger}J2") for finger in ("FF", "MF", "RF", "LF"))
WRIST = ("rh_WRJ2", "rh_WRJ1")

SHADOW_HAND = Robot(
    name="shadow_hand",
    joint_names=HAND24.joint_names,
    lower=HAND24.lower.copy(),
    upper=HAND24.upper.copy(),
    velocity=np.full(24, 3.3),
    acceleration=np.full(24, 100.0),
    jerk=np.full(24, 10_000.0),
    poses={"cup": HAND24.poses["cup"].copy(), "open": np.zeros(24)},
)
