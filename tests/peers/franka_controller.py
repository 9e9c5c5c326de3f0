# SPDX-License-Identifier: Apache-2.0
"""A simulated Franka controller as a process, on a loopback address: `franka.py` starts it.

Runs in the environment that `make peers` makes. It is `franka-sim` with every check of the arm's
own on, the model of `franky-sim` without what is only seen, and orders on its standard input.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from pathlib import Path
from typing import Any

REFLEXES = {"joint_reflex": 6, "cartesian_reflex": 7}
KEPT = 200_000  # commands
PRIORITY = 40  # of real time, below its client's
ARMATURE = 0.5  # kg m^2, least of a joint


def bare_model() -> str:
    """Write the arm's model without what is only seen; returns the file."""
    package = importlib.util.find_spec("franky_sim")
    assets = Path(package.origin).parent / "assets"
    tree = ElementTree.parse(assets / "fr3.xml")
    root = tree.getroot()
    root.find("compiler").set("meshdir", str(assets / "meshes"))
    for parent in list(root.iter()):
        for geom in parent.findall("geom"):
            if geom.get("class") == "visual":
                parent.remove(geom)
    # The wrist's joints are so light that the simulated servos, whose damping is stepped
    # explicitly, would shake them.
    for joint in root.iter("joint"):
        if joint.get("armature"):
            joint.set("armature", str(max(ARMATURE, float(joint.get("armature")))))
    used = {geom.get("mesh") for geom in root.iter("geom")}
    for asset in root.findall("asset"):
        for mesh in asset.findall("mesh"):
            if (mesh.get("name") or Path(mesh.get("file")).stem) not in used:
                asset.remove(mesh)
    with tempfile.NamedTemporaryFile("wb", suffix=".xml", delete=False) as file:
        tree.write(file)
    return file.name


class Controller:
    """The simulated controller, what it was told, and what goes wrong with it."""

    def __init__(self, address: str) -> None:
        self.commands: deque[tuple[float, list[float], list[float]]] = deque(maxlen=KEPT)
        self.moves = 0
        package = importlib.import_module("franka_sim.franka_sim_server")
        self.server = server = package.FrankaSimServer(
            host=address, enforce_comm_constraints=True, enforce_motion_limits=True
        )
        absorb, apply, move, abort = (
            server._absorb_within_motion_limits,
            server._dispatch_control_command,
            server.handle_move_command,
            server._abort_with_error,
        )
        self.aborts: list[str] = []

        def take(command: dict[str, Any], *, fresh: bool) -> bool:
            # As the arm has it: what comes too late is dropped.
            return fresh and bool(absorb(command, fresh=fresh))

        def dispatch(command: dict[str, Any], *rest: Any, **more: Any) -> Any:
            time_s = 1e-3 * server.robot_state.state["message_id"]
            measured = server.robot_state.state["q"]
            self.commands.append((time_s, list(command["q_c"]), [float(q) for q in measured]))
            return apply(command, *rest, **more)

        def begin(*arguments: Any, **more: Any) -> Any:
            self.moves += 1
            return move(*arguments, **more)

        def give_up(index: Any, reason: str, *rest: Any, **more: Any) -> Any:
            self.aborts.append(reason)
            return abort(index, reason, *rest, **more)

        server._absorb_within_motion_limits = take
        server._dispatch_control_command = dispatch
        server.handle_move_command = begin
        server._abort_with_error = give_up
        self._step_with_states()
        threading.Thread(target=server.start, daemon=True).start()
        while not (server.server_socket and server.gripper_server.server_socket):
            time.sleep(0.01)

    def _step_with_states(self) -> None:
        """Have the physics go on by a millisecond with each state that is told.

        Stepped by the wall clock, as they are, they come apart on a busy machine.
        """
        physics = self.server.physics_sim
        states = importlib.import_module("franka_sim.robot_state").RobotState
        update = states.update

        def advance(state: Any) -> None:
            update(state)
            physics.step()

        def idle() -> None:
            while physics.running:
                time.sleep(0.1)

        states.update = advance
        physics.run_simulation = idle

    def on_reflex(self, name: str) -> float:
        self.server._abort_with_error(REFLEXES[name], name)
        return time.monotonic()

    def on_stall(self, pid: int, cycles: int) -> int:
        """Keep a process from running for some of the controller's cycles; returns how many."""
        server = self.server
        begin = server.states_sent
        os.kill(pid, signal.SIGSTOP)
        while server.states_sent < begin + cycles:
            time.sleep(0.0002)
        os.kill(pid, signal.SIGCONT)
        return server.states_sent - begin

    def on_object(self, width: float | None) -> None:
        """Put something between the fingers, or take it away."""
        self.server.gripper_server.backend.set_object_width(width)

    def on_commands(self) -> list[tuple[float, list[float], list[float]]]:
        """What was commanded since the last call: controller's time, told, measured."""
        taken = list(self.commands)
        self.commands.clear()
        return taken

    def on_counts(self) -> dict[str, Any]:
        return {
            "moves": self.moves,
            "commands": len(self.commands),
            "aborts": self.aborts,
            "time_s": 1e-3 * self.server.robot_state.state["message_id"],
        }


def main() -> None:
    # A real controller does not share its machine; where this one may, it goes first.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    os.environ["MUJOCO_GL"] = "disable"
    os.environ["FR3_MJCF"] = model = bare_model()
    # What the server prints on its own is not an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    controller = Controller(sys.argv[1])
    os.remove(model)
    print(json.dumps("up"), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        what = order.pop("do")
        print(json.dumps(getattr(controller, f"on_{what}")(**order)), file=answers, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
