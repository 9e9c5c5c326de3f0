# SPDX-License-Identifier: Apache-2.0
"""A pilot's arm, gripper and orders, from `pilot_input` to the twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from arm_station import ArmStation
from piloted_station import patient_config
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from std_srvs.srv import Trigger
from twin_station import START_S
from twinloop.nodes import qos
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import PANDA
from twinloop.teleop.settings import load_settings

from twinloop_interfaces.msg import ControlStatus, PilotInput, PilotStatus

ARM = load_settings().arm


class Pilot(ArmStation):
    """An arm that is steered, and whoever a pilot gives orders to."""

    def __init__(self, folder: Path) -> None:
        # The longest patience that there is: here a busy machine plays the pilot.
        config = patient_config(folder)
        super().__init__(tracker=False, emergency_stop_timeout_s=10.0)
        self.motions: dict[str, float] = {}
        self.is_held = False
        self.statuses: list[PilotStatus] = []
        self.orders: list[tuple[str, object]] = []
        node = self.station.node
        self._inputs = node.create_publisher(PilotInput, "pilot_input", qos.SENSOR)
        self.control = node.create_publisher(ControlStatus, "control_status", qos.latched())
        node.create_subscription(PilotStatus, "pilot_status", self.statuses.append, qos.latched())
        node.create_timer(0.02, self._say)
        for name in ("press_emergency_stop", "resume_autonomy"):
            node.create_service(Trigger, name, self._note(name))
        for name in ("planner", "steering"):
            node.create_service(SetParameters, f"{name}/set_parameters", self._set)
        self.teleop = self.station.start(
            "twinloop.nodes.teleop", use_sim_time=True, arm=True, config=config
        )
        self.station.spin_until(lambda: self.statuses and self.told, START_S)
        self.station.spin_until(lambda: self._inputs.get_subscription_count() > 0, START_S)
        self.station.spin(0.5)

    def close(self) -> None:
        self.teleop.kill()
        self.teleop.wait()
        super().close()

    def hold(self, **motions: float) -> None:
        self.motions = {name.replace("__", "/"): value for name, value in motions.items()}
        self.is_held = True

    def hold_until(self, is_true: Callable[[], bool], **motions: float) -> None:
        """Hold until something is true; pressed anew where a busy machine has lost the pilot."""
        for _ in range(120):
            self.hold(**motions)
            self.station.spin(0.15)
            heard = self.statuses[-1].state
            if is_true():
                return
            if heard == PilotStatus.LOST:
                self.let_go()
                self.station.spin(0.2)
        raise AssertionError(f"nothing came of it; {self.statuses[-1]}")

    def let_go(self) -> None:
        self.motions, self.is_held = {}, False

    def _say(self) -> None:
        names = list(self.motions)
        values = [float(self.motions[name]) for name in names]
        self._inputs.publish(
            PilotInput(source="tester", dead_man=self.is_held, names=names, values=values)
        )

    def _note(self, name: str):
        def answer(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            self.orders.append((name, None))
            response.success = True
            return response

        return answer

    def _set(self, request: SetParameters.Request, response: SetParameters.Response):
        for parameter in request.parameters:
            value = parameter.value
            told = value.bool_value if value.type == 1 else round(value.double_value, 6)
            self.orders.append((parameter.name, told))
            response.results.append(SetParametersResult(successful=True))
        return response


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pilot]:
    running = Pilot(tmp_path_factory.mktemp("teleop"))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(autouse=True)
def at_rest(pilot: Pilot) -> Iterator[None]:
    pilot.let_go()
    pilot.orders.clear()
    pilot.station.spin_until(lambda: pilot.statuses[-1].state != PilotStatus.HELD)
    yield
    pilot.let_go()


def moved(pilot: Pilot, since: int) -> np.ndarray:
    return pilot.told[-1][1] - pilot.told[since][1]


def test_the_arm_is_jogged_while_the_dead_man_is_held(pilot: Pilot) -> None:
    station, since = pilot.station, len(pilot.told) - 1
    pilot.motions = {"joint/panda_joint7": 1.0}
    station.spin(0.5)
    assert np.abs(moved(pilot, since)).max() == 0.0  # not without it
    # A busy machine lets go of it now and then.
    for _ in range(20):
        pilot.hold(joint__panda_joint7=1.0)
        station.spin(1.0)
        if moved(pilot, since)[6] > 0.2:
            break
        pilot.let_go()
        station.spin(0.3)
    pilot.let_go()
    way = moved(pilot, since)
    assert way[6] > 0.2
    assert np.abs(way[:6]).max() < 1e-6
    told = np.array([position for _, position in pilot.told[since:]])
    ticks = np.diff([stamp for stamp, _ in pilot.told[since:]])
    speed = np.abs(np.diff(told, axis=0)).max(axis=1)[ticks == 10_000_000] / 0.01
    assert np.median(speed[speed > 0.05]) <= 1.05 * ARM.joint_speed
    station.spin(0.6)
    rest = pilot.told[-1][1]
    station.spin(0.3)
    assert np.abs(pilot.told[-1][1] - rest).max() == 0.0


def test_the_gripper_closes_while_it_is_wanted_and_stays_where_it_is_let_go(pilot: Pilot) -> None:
    station, arm = pilot.station, pilot.arm
    pilot.hold_until(lambda: arm.width_m < 0.06, gripper=-1.0)
    pilot.let_go()
    station.spin(0.3)
    width_m = arm.width_m
    station.spin(0.3)
    assert abs(arm.width_m - width_m) < 1e-3
    pilot.hold_until(lambda: arm.width_m > 0.079, gripper=1.0)


def test_orders_go_to_whom_they_are_for(pilot: Pilot) -> None:
    station = pilot.station
    pilot.control.publish(ControlStatus(who=ControlStatus.AUTONOMY, alpha=0.5, sharing=False))
    station.spin(0.3)
    for order in ("stop", "resume", "alpha/up", "share"):
        pilot.motions = {order: 1.0}
        station.spin(0.2)
        pilot.motions = {}
        station.spin(0.2)
    station.spin_until(lambda: len(pilot.orders) == 4)
    assert pilot.orders == [
        ("press_emergency_stop", None),
        ("resume_autonomy", None),
        ("alpha", 0.6),
        ("sharing", True),
    ]


def test_joints_are_chosen_one_after_the_other(pilot: Pilot) -> None:
    station = pilot.station
    hand, arm = pilot.statuses[-1].joint.split(", ")
    for order in ("hand/next", "arm/previous"):
        pilot.motions = {order: 1.0}
        station.spin(0.2)
    pilot.motions = {}

    def follows(names: tuple[str, ...], before: str, by: int, now: str) -> bool:
        return names[(names.index(before) + by) % len(names)] == now

    def are_chosen() -> bool:
        chosen = pilot.statuses[-1].joint.split(", ")
        return follows(HAND24.joint_names, hand, 1, chosen[0]) and follows(
            PANDA.joint_names, arm, -1, chosen[1]
        )

    station.spin_until(are_chosen)
