# SPDX-License-Identifier: Apache-2.0
"""Quality of service of every kind of topic, in one place."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

# Deep enough for what comes in while a planner plans.
SENSOR = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
# The newest image counts, and one more may be on its way.
IMAGE = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
# The newest command counts; a source that dies is noticed by its lease, whatever the clock does.
COMMAND = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    deadline=Duration(nanoseconds=500_000_000),
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(nanoseconds=200_000_000),
)
EVENT = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
HEARTBEAT = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
DIAGNOSTICS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
CLOCK = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def latched(depth: int = 1) -> QoSProfile:
    """State that a late subscriber still gets."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
