# SPDX-License-Identifier: Apache-2.0
"""A driver on a simulator of its device, as the launch file starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from bag_processes import Observer, wait_until
from sensor_msgs.msg import JointState
from twinloop.dds import leave_domain, take_domain
from twinloop.nodes import qos
from twinloop.robots.leap import LEAP

MAIN = "from twinloop.cli.main import main; main()"


def test_a_simulated_hand_is_driven_from_one_command() -> None:
    domain = take_domain()
    joints: list[JointState] = []
    arguments = ["robot:=leap", "hardware:=sim", "namespace:=lab", "require_emergency_stop:=false"]
    with Observer(domain) as observer:
        observer.node.create_subscription(
            JointState, "/lab/joint_states", joints.append, qos.SENSOR
        )
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "launch", "robot", *arguments],
            env=os.environ | {"ROS_DOMAIN_ID": str(domain)},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: len(joints) > 20, 120.0)
            assert joints[-1].name == list(LEAP.joint_names)
            wait_until(lambda: "/lab/driver" in observer.statuses)
            assert observer.values("/lab/driver")["device"].startswith("Dynamixel bus /tmp/")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60.0)
    leave_domain(domain)
    assert process.returncode == 0
