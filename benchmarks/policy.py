# SPDX-License-Identifier: Apache-2.0
"""The policy node at 50 Hz and more, on one core that a learner trains on.

The node, over DDS, acts for a hand of 24 joints by a network of 2 x 256: weights of ours, or the
same network as ONNX and as TorchScript. A learner takes gradient steps of soft actor-critic on the
same core all the while, at the learner's own priority. Joint states come at 100 Hz of real time
from this process, on the other cores; a command goes back as the applied one, as a guard does.

Once it is up the node runs at a real-time priority, and so does this process, where the system lets
them: that keeps out what else the machine does. --ordinary leaves them at the node's own niceness.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
import rclpy
import torch
from harness import Target
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from torch import Tensor, nn
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from twinloop.contract.hand_cell import hand_contract
from twinloop.contract.spec import Contract
from twinloop.dds import leave_domain, take_domain
from twinloop.learning import exported_policies
from twinloop.learning.model_file import Candidate, write_model
from twinloop.learning.online_child import lower_priority
from twinloop.models.actor import Actor, ActorConfig
from twinloop.nodes import qos
from twinloop.nodes.joint_messages import joint_state, nanoseconds, time_message
from twinloop.robots.hand24 import HAND24

from twinloop_interfaces.msg import PlanStats

TICK_S = 0.01
_WARM_S = 3.0


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--ordinary", action="store_true", help="no real-time priority")
    arguments = parser.parse_args()
    folder = harness.start("policy", arguments.full, arguments.resume)
    seconds = 30.0 if arguments.full else 8.0
    cases = [
        ("actor, 50 Hz, learner trains", "actor", 0.02, True),
        ("actor, 100 Hz, learner trains", "actor", 0.01, True),
        ("actor, 50 Hz, nothing beside", "actor", 0.02, False),
        ("onnx, 50 Hz, learner trains", "onnx", 0.02, True),
        ("torchscript, 50 Hz, learner trains", "torchscript", 0.02, True),
    ]
    figures: dict[str, Any] = {"seconds_a_case": seconds, "network": "72-256-256-24"}
    figures["load_before"] = os.getloadavg()[0]
    figures["scheduling"] = "ordinary" if arguments.ordinary else "real time, but for the learner"
    measured = {}
    for name, kind, period_s, trains in cases:
        measured[name] = case(
            folder / kind / f"{period_s:g}", kind, period_s, trains, seconds, arguments.ordinary
        )
        shown = {k: v for k, v in measured[name].items() if k != "plan_ms"}
        print(f"{name}: {shown}", flush=True)
    figures["rows"] = [
        {"case": name, **{k: v for k, v in row.items() if k != "plan_ms"}}
        for name, row in measured.items()
    ]
    targets = []
    for name, row in measured.items():
        targets.append(Target(f"{name}: plan p99 ms", row.get("plan_ms_p99"), 5.0, "<="))
        rate = 0.99 / row["period_s"]
        targets.append(Target(f"{name}: commands a second", row.get("commands_hz"), rate, ">="))
    harness.finish("policy", folder, figures, targets, arguments.full, [plot(folder, measured)])


def contract(period_s: float) -> Contract:
    """Return that of the hand's joints alone, at another pace than the cells'."""
    return hand_contract("hand_joints", 4.0, ()).model_copy(update={"period_s": period_s})


class Network(nn.Module):
    """What others would have exported."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(72, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 24)
        )

    def forward(self, seen: Tensor) -> Tensor:
        return torch.tanh(self.layers(seen))


def write_policy(folder: Path, kind: str, of: Contract) -> Path:
    """Write a policy of a kind as a model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    version = folder / "v0001"
    if version.exists():
        return version
    version.mkdir()
    made: Any
    if kind == "actor":
        made = Actor(ActorConfig(observation_size=72, action_size=24, acts="change"))
        made.action_scale.fill_(0.02)
        made.requires_grad_(False)
    elif kind == "torchscript":
        path = folder / "policy.pt"
        torch.jit.script(Network()).save(path)
        made = exported_policies.load(path, of, acts="change")
    else:
        path = folder / "policy.onnx"
        path.write_bytes(as_onnx(Network()))
        made = exported_policies.load(path, of, acts="change")
    write_model(version, Candidate(made, of))
    return version


def as_onnx(network: Network) -> bytes:
    """Return the network as ONNX, operator by operator: torch's exporter asks for more packages."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, last = [], [], "seen"
    for index, layer in enumerate(network.layers):
        following = f"x{index}"
        if isinstance(layer, nn.Linear):
            for part in ("weight", "bias"):
                value = getattr(layer, part).detach().numpy()
                tensors.append(numpy_helper.from_array(value, f"{part}{index}"))
            names = [last, f"weight{index}", f"bias{index}"]
            nodes.append(helper.make_node("Gemm", names, [following], transB=1))
        else:
            nodes.append(helper.make_node("Relu", [last], [following]))
        last = following
    nodes.append(helper.make_node("Tanh", [last], ["action"]))
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("seen", 72), ("action", 24))
    ]
    graph = helper.make_graph(nodes, "policy", shapes[:1], shapes[1:], tensors)
    opset = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return content


def train_forever(core: int, steps: Any) -> None:
    """Take gradient steps on one core, at a learner's priority, until killed."""
    os.sched_setaffinity(0, {core})
    from twinloop.learning.episode import Episode
    from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
    from twinloop.tasks.of_contract import ContractTask

    torch.set_num_threads(1)
    task = ContractTask(contract(0.02))
    rng = np.random.default_rng(0)
    learner = OffPolicyLearner(task, OffPolicySettings(updates=1e6))
    for index in range(5):
        seen = rng.normal(size=(201, 72)).astype(np.float32)
        actions = seen[:-1, 48:] + 0.02 * rng.normal(size=(200, 24)).astype(np.float32)
        learner.add([Episode(seen, actions, {"episode_id": str(index)})])
    learner.improve(most=10)
    os.setsid()  # a group of its own, where the kernel shares the core out by groups
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
    lower_priority("idle")
    parent = os.getppid()
    while os.getppid() == parent:
        learner.improve(most=1)
        steps.value += 1


def case(
    folder: Path, kind: str, period_s: float, trains: bool, seconds: float, ordinary: bool
) -> dict[str, Any]:
    """Run the node for so long and return its times, of all steps after the first seconds."""
    of = contract(period_s)
    model = write_policy(folder, kind, of)
    cores = sorted(os.sched_getaffinity(0))
    domain = take_domain()
    node = start_node(domain, cores[0], model=model, runs_code=kind == "torchscript", rtf=1.0)
    spawning = multiprocessing.get_context("spawn")
    steps = spawning.Value("q", 0, lock=False)
    learner = spawning.Process(target=train_forever, args=(cores[0], steps))
    if trains:
        learner.start()
        deadline_s = time.monotonic() + 120.0
        while not steps.value and time.monotonic() < deadline_s:
            time.sleep(0.1)
    station = Station(domain, of)
    try:
        station.wait()
        before = steps.value
        if not ordinary:
            hurry(node.pid)
            hurry(os.getpid())
        station.run(seconds)
        node.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(30.0)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        node.kill()
        node.wait()
        if trains:
            learner.kill()
            learner.join()
        station.close()
        leave_domain(domain)
    trained = (steps.value - before) / (seconds + _WARM_S)
    return station.figures() | {"period_s": period_s, "gradient_steps_hz": trained}


def start_node(domain: int, core: int, **parameters: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from twinloop.nodes.policy import main; main()", "--ros-args"]
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ["-p", f"{name}:={text}"]
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )


def hurry(process: int) -> None:
    """Give the threads of a process a real-time priority, where the system allows that."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(10))


class Station:
    """Says joint states in real time, and hears what the node answers."""

    def __init__(self, domain: int, of: Contract) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._names = list(HAND24.joint_names)
        self._goal = HAND24.poses["cup"]
        self._sent_s: dict[int, float] = {}
        self.answers: list[tuple[float, float]] = []  # when sent, and how long it took, s
        self.stats: list[tuple[float, float, float]] = []  # when, plan and lateness, ms
        self.stops: list[str] = []
        node = self._node = rclpy.create_node("station", context=self._context)
        self._joints = node.create_publisher(JointState, "joint_states", qos.SENSOR)
        self._applied = node.create_publisher(JointTrajectory, of.action.applied_topic, qos.EVENT)
        node.create_subscription(JointTrajectory, of.action.topic, self._on_command, qos.COMMAND)
        node.create_subscription(PlanStats, "plan_stats", self._on_stats, qos.EVENT)
        self._start = node.create_client(Trigger, "start_policy")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._began_s = 0.0

    def wait(self) -> None:
        """Wait for the node.

        Raises:
            TimeoutError: it did not come up.
        """
        deadline_s = time.monotonic() + 120.0
        while not (self._start.service_is_ready() and self._joints.get_subscription_count()):
            if time.monotonic() > deadline_s:
                raise TimeoutError("the policy node did not come up in 120 s")
            self._speak()
            self._executor.spin_once(timeout_sec=0.05)

    def run(self, seconds: float) -> None:
        """Let the node act, and speak for so long.

        Raises:
            TimeoutError: it did not begin.
        """
        self._applied_now(time.time_ns())
        asked = self._start.call_async(Trigger.Request())
        self._began_s = due_s = time.monotonic()
        while time.monotonic() < self._began_s + seconds + _WARM_S:
            self._speak()
            due_s += TICK_S
            while True:
                left_s = due_s - time.monotonic()
                if left_s <= 0:
                    break
                self._executor.spin_once(timeout_sec=left_s)
        if not asked.done() or not asked.result().success:
            raise TimeoutError("the policy node did not begin to act")

    def _speak(self) -> None:
        now_ns = time.time_ns()
        self._sent_s[now_ns] = time.monotonic()
        zeros = np.zeros(24)
        self._joints.publish(joint_state(self._names, now_ns, self._goal, zeros))

    def _applied_now(self, stamp_ns: int) -> None:
        message = JointTrajectory(joint_names=self._names)
        message.header.stamp = time_message(stamp_ns)
        message.points = [JointTrajectoryPoint(positions=self._goal.tolist())]
        self._applied.publish(message)

    def _on_command(self, message: JointTrajectory) -> None:
        now_s = time.monotonic()
        due_ns = nanoseconds(message.header.stamp)
        # The first sample at or after the due time triggered the step.
        sent = [s for ns, s in self._sent_s.items() if ns >= due_ns]
        if sent:
            self.answers.append((now_s, now_s - min(sent)))
        self._sent_s = {ns: s for ns, s in self._sent_s.items() if s > now_s - 0.5}
        self._applied_now(due_ns)

    def _on_stats(self, message: PlanStats) -> None:
        if message.stop_reason:
            # Where this process was kept from speaking in time, the node was right to stop.
            self.stops.append(message.stop_reason)
            self._applied_now(time.time_ns())
            self._start.call_async(Trigger.Request())
        else:
            self.stats.append((time.monotonic(), message.plan_ms, message.lateness_ms))

    def figures(self) -> dict[str, Any]:
        first_s = self._began_s + _WARM_S
        stats = np.array([row[1:] for row in self.stats if row[0] >= first_s]).reshape(-1, 2)
        answers = 1e3 * np.array([took for at, took in self.answers if at >= first_s])
        times = np.array([at for at, _ in self.answers if at >= first_s])
        if len(times) < 2:
            return {"steps": len(stats), "stops": len(self.stops), "plan_ms": stats[:, 0]}
        return {
            "steps": len(stats),
            "commands_hz": (len(times) - 1) / (times[-1] - times[0]),
            "plan_ms_median": float(np.median(stats[:, 0])),
            "plan_ms_p99": float(np.quantile(stats[:, 0], 0.99)),
            "plan_ms_largest": float(stats[:, 0].max()),
            "lateness_ms_p99": float(np.quantile(stats[:, 1], 0.99)),
            "sample_to_command_ms_median": float(np.median(answers)),
            "sample_to_command_ms_p99": float(np.quantile(answers, 0.99)),
            "stops": len(self.stops),
            "load": os.getloadavg()[0],  # of the machine, this included
            "plan_ms": stats[:, 0],
        }

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


def plot(folder: Path, measured: dict[str, dict[str, Any]]) -> Path:
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="tight")
    for name, row in measured.items():
        values = np.sort(row["plan_ms"])
        axes.plot(values, 1 - np.arange(len(values)) / len(values), label=name)
    axes.axvline(5.0, color="0.5", ls=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("time of a step [ms]")
    axes.set_ylabel("share of steps that take longer")
    axes.legend(fontsize=7)
    path = folder / "times.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
