# SPDX-License-Identifier: Apache-2.0
"""What may be wrong with a device; each fault's text names the device and what was found."""

from __future__ import annotations


class DriverFault(RuntimeError):
    """A device does not do what it should."""


class DeviceMissing(DriverFault):
    """It is not there, cannot be opened, or lacks what it is asked for."""


class DeviceLost(DriverFault):
    """It was there, and gives nothing any more."""


class EndOfStream(Exception):
    """A file that stands in for a device has come to its end."""
