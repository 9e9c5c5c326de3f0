# SPDX-License-Identifier: Apache-2.0
"""A pilot steers a launched cell for a while, and autonomy goes on: what the bag says of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Joy
from twinloop.bags.episodes import episodes
from twinloop.bags.read import complete_bags, read_messages
from twinloop.dds import own_domain
from twinloop.nodes import qos
from twinloop.paths import share
from twinloop.teleop.settings import load_settings

from twinloop import contract
from twinloop_interfaces.msg import ControlStatus, EpisodeStatus

CONTRACT = contract.load("baoding")
SETTINGS = load_settings()
CODE = "from twinloop.cli.main import main; main()"
PATIENCE_S = 150.0
PILOTED_STEPS = 8
# Simulated time waits for everybody: a busy machine changes nothing.
CELL = (
    *("teleop:=true", "episodes:=1", "steps:=40", "eyes:=standin", "lockstep:=true", "busy:=true"),
    *("learn:=false", "web:=false", "markers:=false", "robot_state:=none"),
)


class Joystick:
    """Plays a joystick to a launched cell, and hears who commands."""

    def __init__(self, domain: int) -> None:
        self.is_held, self.close = False, 0.0
        self.who, self.step, self.phase = -1, 0, 0
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node("pilots_hands", context=self._context)
        self._joy = self._node.create_publisher(Joy, "joy", qos.SENSOR)
        self._node.create_subscription(
            ControlStatus, "control_status", self._on_control, qos.latched()
        )
        self._node.create_subscription(
            EpisodeStatus, "episode_status", self._on_episode, qos.latched()
        )
        self._node.create_timer(0.02, self._say)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def end(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def work_until(self, is_true: Callable[[], bool]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < end_s, f"step {self.step}, {self.who} commands"
            self._executor.spin_once(timeout_sec=0.05)

    def _on_control(self, status: ControlStatus) -> None:
        self.who = status.who

    def _on_episode(self, status: EpisodeStatus) -> None:
        self.step, self.phase = status.step, status.phase

    def _say(self) -> None:
        dead_man = SETTINGS.joystick.dead_man
        buttons = [int(number == dead_man and self.is_held) for number in range(12)]
        self._joy.publish(Joy(axes=[0.0, self.close, *[0.0] * 6], buttons=buttons))


def test_an_intervention_stands_in_the_bag_and_nothing_jumps(tmp_path: Path) -> None:
    domain = own_domain()
    # The longest patience that there is: a busy machine plays the pilot.
    text = share("config", "teleop", "cell.yaml").read_text()
    patient = tmp_path / "patient.yaml"
    patient.write_text(re.sub(r"(?m)^timeout_s: \S+", "timeout_s: 0.1", text))
    given = [*CELL, f"record_dir:={tmp_path}/bags", f"teleop_config:={patient}"]
    log = (tmp_path / "log.txt").open("w")
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "launch", "baoding", *given],
        cwd=tmp_path,
        env={**os.environ, **domain, "ROS_LOG_DIR": str(tmp_path / "log")},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    joystick = Joystick(int(domain["ROS_DOMAIN_ID"]))
    try:
        joystick.work_until(lambda: joystick.step >= 8)
        begun = 0
        while joystick.who != ControlStatus.PILOT or joystick.step < begun + PILOTED_STEPS:
            if joystick.who != ControlStatus.PILOT:
                begun = joystick.step
            # A busy machine loses him now and then: let go and pressed anew, he counts again.
            is_lost = joystick.who == ControlStatus.NOBODY and joystick.is_held
            joystick.is_held, joystick.close = not is_lost, 0.4
            since = joystick.step
            joystick.work_until(lambda since=since: joystick.step > since)
            assert joystick.step < 38
        joystick.is_held, joystick.close = False, 0.0
        joystick.work_until(lambda: joystick.who == ControlStatus.AUTONOMY)
        joystick.work_until(lambda: joystick.phase >= EpisodeStatus.ENDED)
        process.wait(PATIENCE_S)
    finally:
        joystick.end()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30.0)
        log.close()

    [bag] = complete_bags(tmp_path / "bags")
    [episode] = episodes(bag, CONTRACT)
    piloted = np.zeros(len(episode), bool)
    for first, end in episode.meta["piloted"]:
        piloted[first:end] = True
    assert PILOTED_STEPS <= piloted.sum() < len(episode)
    assert not piloted[:6].any()
    # Each step's action starts from the one before, whoever gave it; a pilot's no faster than his.
    before = episode.observations[:-1, CONTRACT.slices["command"]]
    change = np.abs(episode.actions - before).max(axis=1)
    assert change.max() <= CONTRACT.action.rate * CONTRACT.period_s + 1e-5
    assert change[piloted].max() <= SETTINGS.hand.joint_speed * CONTRACT.period_s + 1e-5
    said = [m.decode() for m in read_messages(bag) if m.topic.endswith("/control_status")]
    assert ControlStatus.PILOT in {one.who for one in said}
