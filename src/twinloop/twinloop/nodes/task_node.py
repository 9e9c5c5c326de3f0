# SPDX-License-Identifier: Apache-2.0
"""A node that serves a task of the arm as an action: prepared, carried out and told of alike."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import Any, ClassVar, Protocol

from rclpy.action.server import ServerGoalHandle

from twinloop.nodes.base import ERROR, OK, WARN, Health, Node
from twinloop.nodes.task_action import TaskAction
from twinloop.resets.faults import Fault
from twinloop.resets.machine import Outcome

_DISCOVERY_S = 10.0  # nodes that were started together find each other within it


class Device(Protocol):
    """What a node opened on its topics, and closes."""

    def close(self) -> None: ...


class TaskNode(Node):
    """Wires a task to its cell's topics and one action; the task runs in a thread of its own.

    Attributes:
        verb: what the node does, for its health.
        doing: the same while it is under way.
        phase: of the task that is under way; empty without.
        trouble: why there is no task.
        action: serves it, while the node is configured.
    """

    verb: ClassVar[str]
    doing: ClassVar[str]

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.phase, self.trouble = "", ""
        self.action: TaskAction | None = None
        self._devices: tuple[Device, ...] = ()
        self._prepared: threading.Thread | None = None

    # What a task's node says of itself.

    @abstractmethod
    def open_devices(self, withdrawn: threading.Event) -> tuple[Device, ...]:
        """Open what the task needs of the cell; closed again by the node."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the task; in a thread, since loading and planning take seconds."""

    @abstractmethod
    def missing(self) -> str:
        """Return what the task needs and nobody serves, such as right after the start, or ""."""

    @abstractmethod
    def carry_out(self, handle: ServerGoalHandle, withdrawn: threading.Event) -> Outcome:
        """Carry a goal out, in the task's thread."""

    @abstractmethod
    def result(self, outcome: Outcome) -> Any:
        """Make the action's result of an outcome."""

    def figures(self, last: Outcome) -> dict[str, str]:
        """Return what the heartbeat says of the last task."""
        return {"last": last.message}

    def complaint(self) -> str:
        """Return what is wrong with the cell while nothing is under way, or ""."""
        return ""

    # What all of them do.

    def serve(self, kind: Any, name: str) -> None:
        """Serve an action of a kind by the task; called by `configure`."""
        self.phase, self.trouble = "", ""
        self.action = TaskAction(self, kind, name, self._carry_out, self.result)
        self._devices = self.open_devices(self.action.withdrawn)
        self._prepared = threading.Thread(target=self._prepare, daemon=True)
        self._prepared.start()

    def deactivate(self) -> None:
        if self.action is not None:
            self.action.end()

    def cleanup(self) -> None:
        self._wait_until_prepared()
        if self.action is not None:
            self.action.close()
        for device in self._devices:
            device.close()
        self._devices = ()

    def close(self) -> None:
        if self.action is not None:
            self.action.withdrawn.set()

    def health(self) -> Health:
        last = None if self.action is None else self.action.last
        values = {"phase": self.phase} | ({} if last is None else self.figures(last))
        if self.trouble:
            return Health(ERROR, self.trouble, values)
        if self.phase:
            return Health(OK, f"{self.doing}: {self.phase}", values)
        if last is not None and not last.success:
            return Health(ERROR, f"{last.fault}: {last.message}", values)
        complaint = self.complaint() if self._devices else ""
        return Health(WARN, complaint, values) if complaint else Health(OK, "idle", values)

    def _wait_until_prepared(self) -> None:
        if self._prepared is not None:
            self._prepared.join()

    def _prepare(self) -> None:
        try:
            self.prepare()
        except Exception as error:  # of another thread: shown in the heartbeat
            self.trouble = f"cannot {self.verb}: {type(error).__name__}: {error}"

    def _carry_out(self, handle: ServerGoalHandle) -> Outcome:
        assert self.action is not None
        withdrawn = self.action.withdrawn
        self._wait_until_prepared()
        if self.trouble:
            return Outcome(Fault.NO_PATH, self.trouble, 0.0, (), {})
        missing, end_s = self.missing(), time.monotonic() + _DISCOVERY_S
        while missing and time.monotonic() < end_s and not withdrawn.is_set():
            time.sleep(0.05)
            missing = self.missing()
        if missing:
            return Outcome(Fault.STOPPED, f"not there: {missing}", 0.0, (), {})
        try:
            return self.carry_out(handle, withdrawn)
        finally:
            self.phase = ""
