# SPDX-License-Identifier: Apache-2.0
"""`twinloop teleop` in a terminal: held keys come out as held, and their end as a release."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

from bag_processes import Observer, wait_until
from twinloop.dds import leave_domain, take_domain
from twinloop.nodes import qos

from twinloop_interfaces.msg import PilotInput

CODE = "from twinloop.cli.main import main; main(['teleop'])"


def test_a_key_that_is_held_moves_and_its_end_lets_go() -> None:
    domain = take_domain()
    master, slave = pty.openpty()
    heard: list[PilotInput] = []
    with Observer(domain) as observer:
        observer.node.create_subscription(PilotInput, "pilot_input", heard.append, qos.SENSOR)
        process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            stdin=slave,
            stdout=subprocess.DEVNULL,  # a terminal that nobody reads fills up
            env=os.environ | {"ROS_DOMAIN_ID": str(domain), "TERM": "xterm"},
        )
        try:
            wait_until(lambda: heard, 60.0)
            assert not heard[-1].dead_man
            end_s = time.monotonic() + 30.0
            while not (heard[-1].dead_man and heard[-1].names == ["hand/close"]):
                assert time.monotonic() < end_s
                os.write(master, b"s")
                time.sleep(0.03)
            assert heard[-1].values[0] == -1.0
            wait_until(lambda: heard[-1].dead_man and not heard[-1].names)
            wait_until(lambda: not heard[-1].dead_man)
            os.write(master, b"q")
            assert process.wait(30.0) == 0
        finally:
            process.kill()
            process.wait()
            os.close(master)
            os.close(slave)
            leave_domain(domain)
