# SPDX-License-Identifier: Apache-2.0
"""What may be wrong with a device; each fault's text names the device and what was found."""

from __future__ import annotations

from collections.abc import Mapping


class DriverFault(RuntimeError):
    """A device does not do what it should."""


class DeviceMissing(DriverFault):
    """It is not there, cannot be opened, or lacks what it is asked for."""


class DeviceLost(DriverFault):
    """It was there, and gives nothing any more."""


class SettingRefused(DriverFault):
    """It is there, and set up in another way than it must be."""


class SampleLost(DriverFault):
    """One answer is missing or damaged; the next may be good."""


class JointFault(DriverFault):
    """Joints report faults of their own.

    Args:
        joints: what each of them reports, by joint name.
    """

    def __init__(self, joints: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in joints.items()))
        self.joints = dict(joints)


class EndOfStream(Exception):
    """A file that stands in for a device has come to its end."""
