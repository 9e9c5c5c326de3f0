# SPDX-License-Identifier: Apache-2.0
"""What policies are given: features, scales, symmetries, and actions between limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from twinloop.learning.episode import Episode
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.policy_input import PolicyInput
from twinloop.models.actor import Actor, ActorConfig
from twinloop.models.features import Features
from twinloop.models.room import Room
from twinloop.tasks.equivalents import Equivalent
from twinloop_sim.cells.scene import Physics
from twinloop_sim.cells.valve import ValveScene

from twinloop import tasks

torch.set_num_threads(1)
VALVE = tasks.make("valve")
AT = VALVE.contract.slices


def observed(count: int, seed: int = 0) -> Tensor:
    """Return observations of valves, between the limits of the joints."""
    rng = np.random.default_rng(seed)
    lower, upper = (
        np.array(row) for row in (VALVE.contract.action.lower, VALVE.contract.action.upper)
    )
    seen = rng.normal(size=(count, VALVE.observation_size))
    for name in ("joint_position", "command"):
        seen[:, AT[name]] = rng.uniform(lower, upper, (count, len(lower)))
    for name in ("valve_angle", "goal"):
        angle = rng.uniform(-math.pi, math.pi, count)
        seen[:, AT[name]] = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return torch.from_numpy(seen).float()


def test_features_tell_the_lag_of_joints_and_what_is_left_of_a_turn() -> None:
    features = Features(lag=((0, 1), (1, 2)), turn=((2, 4), (4, 6)), folds=3)
    angle, goal = 0.5, 0.8
    seen = torch.tensor(
        [0.1, 0.4, math.sin(angle), math.cos(angle), math.sin(goal), math.cos(goal), 9.0]
    )
    expected = [0.3, 0.4, math.sin(1.5), math.cos(1.5), math.sin(0.3), math.cos(0.3), 9.0]
    torch.testing.assert_close(features.of(seen), torch.tensor(expected))
    assert float(seen[0]) == pytest.approx(0.1)  # what was observed stays as it was


@pytest.mark.parametrize(
    "wrong", [{"lag": ((0, 2), (2, 3))}, {"turn": ((0, 3), (3, 6))}, {"lag": ((-1, 0), (0, 1))}]
)
def test_features_of_ranges_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="expected two ranges"):
        Features.model_validate(wrong)


def test_features_beyond_the_observation_are_refused() -> None:
    with pytest.raises(ValidationError, match="features reach to element 6, expected at most"):
        ActorConfig(observation_size=5, action_size=1, features=Features(turn=((2, 4), (4, 6))))


def test_an_actor_s_file_keeps_its_features() -> None:
    given = PolicyInput(VALVE)
    given.set_scales(observed(200))
    plain = Actor(ActorConfig(observation_size=32, action_size=9, hidden=(8,)), 3)
    actor = given.shown_to(plain)
    again = Actor.from_tensors(actor.config_json(), actor.state_tensors())
    seen = observed(5, seed=1)
    torch.testing.assert_close(again.act(seen), actor.act(seen))
    # By hand: the plain network, given features and scales.
    torch.testing.assert_close(actor.moments(seen)[0], plain.moments(given.of(seen))[0])
    assert actor.config.acts == "change"


def test_the_valve_s_features_are_the_same_at_every_spoke() -> None:
    seen = observed(20)
    third = VALVE.equivalents[1]
    turned = seen.clone()
    for name in ("valve_angle", "goal"):
        turned[:, AT[name]] = (seen @ third.observation.T)[:, AT[name]]
    assert not torch.allclose(turned, seen, atol=0.1)
    features = PolicyInput(VALVE)
    torch.testing.assert_close(features.of(turned), features.of(seen), atol=1e-5, rtol=0.0)


def test_the_valve_s_equivalents_are_the_six_symmetries_of_a_triangle() -> None:
    found = [each.observation for each in VALVE.equivalents]
    assert len(found) == 6
    assert torch.equal(found[0], torch.eye(32))
    for one in found:
        for other in found:
            assert sum(torch.allclose(one @ other, each, atol=1e-5) for each in found) == 1


def test_equivalent_steps_earn_as_much_and_are_limited_alike() -> None:
    before, after = observed(30), observed(30, seed=1)
    actions = torch.rand(30, 9) * 2.0 - 1.0
    earned = VALVE.reward(before, actions, after)
    given = PolicyInput(VALVE)
    for seen, done in VALVE.equivalents:
        other = VALVE.reward(before @ seen.T, actions @ done.T, after @ seen.T)
        torch.testing.assert_close(other, earned, atol=1e-4, rtol=0.0)
        torch.testing.assert_close(
            given.actions(before @ seen.T, actions @ done.T),
            given.actions(before, actions) @ done.T,
            atol=1e-4,
            rtol=0.0,
        )


def test_the_twin_moves_an_equivalent_claw_equivalently() -> None:
    rng = np.random.default_rng(5)
    joints = np.tile([0.0, -0.3, 0.8], 3) + rng.normal(0.0, 0.1, 9)
    changes = rng.uniform(-0.2, 0.2, (6, 9))
    angle = 0.4
    usual = _after(VALVE.equivalents[0], joints, angle, changes)
    begun = torch.tensor([math.sin(angle), math.cos(angle)])
    assert float((usual[AT["valve_angle"]] - begun).abs().max()) > 0.2
    for each in VALVE.equivalents[1:]:
        found = _after(each, joints, angle, changes)
        # Contacts are solved to some accuracy, and small differences grow.
        torch.testing.assert_close(found, each.observation @ usual, atol=0.05, rtol=0.0)


def _after(
    by: Equivalent, joints: NDArray[np.float64], angle: float, changes: NDArray[np.float64]
) -> Tensor:
    """Return the true observation after changes of the targets, all of them mapped."""
    action = by.action.double().numpy()
    turned = by.observation[AT["valve_angle"], AT["valve_angle"]].double().numpy() @ [
        math.sin(angle),
        math.cos(angle),
    ]
    scene = ValveScene()
    physics = Physics(scene.model, scene.substeps, 1)
    command = action @ joints
    states = physics.at(np.append(command, math.atan2(*turned)))[None]
    for change in changes:
        command = command + action @ change
        states = physics.advance(states, np.repeat(command[None, None], 10, axis=1))[:, -1]
    (qpos,), (qvel,) = physics.qpos(states), physics.qvel(states)
    seen = {
        "joint_position": qpos[:9],
        "joint_velocity": 0.0 * qvel[:9],
        "command": command,
        "valve_angle": [math.sin(qpos[9]), math.cos(qpos[9])],
        "valve_velocity": 0.0 * qvel[9:10],
        "goal": [0.0, 0.0],
    }
    return torch.from_numpy(VALVE.contract.pack(seen)).float()


def test_actions_span_what_limits_leave_of_the_largest_change() -> None:
    room = Room(command=(0, 1), lower=(-1.0,), upper=(1.0,), largest=0.2)
    seen = torch.tensor([[0.0], [0.95], [1.0], [-1.0], [1.3]])
    most, least = (room.changes(seen, torch.full((5, 1), by))[:, 0] for by in (1.0, -1.0))
    torch.testing.assert_close(most[:4], torch.tensor([1.0, 0.25, 0.0, 1.0]))
    torch.testing.assert_close(least[:4], torch.tensor([-1.0, -1.0, -1.0, 0.0]))
    assert most[4] < -0.99  # beyond its limits there is one way to go
    actions = torch.tensor([[0.3], [-0.7], [1.0], [-1.0], [0.0]])
    back = room.actions(seen, room.changes(seen, actions))
    torch.testing.assert_close(back, actions, atol=1e-3, rtol=0.0)
    # What cannot have been applied, by rounding, is still an action.
    assert room.actions(seen[2:3], torch.tensor([[0.01]])).item() == 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"command": (0, 2)}, "expected one of each for each element"),
        ({"lower": (1.0,)}, "lower limits are not below"),
        ({"upper": (math.nan,)}, "finite number"),
        ({"largest": 0.0}, "greater than 0"),
    ],
)
def test_a_room_that_does_not_fit_is_refused(wrong: dict[str, object], message: str) -> None:
    right = {"command": (0, 1), "lower": (-1.0,), "upper": (1.0,), "largest": 0.2}
    with pytest.raises(ValidationError, match=message):
        Room.model_validate(right | wrong)


@pytest.mark.parametrize("wrong", [{"acts": "target"}, {"chunk": 2}, {"action_size": 2}])
def test_an_actor_keeps_to_limits_by_single_changes_of_its_commands(
    wrong: dict[str, object],
) -> None:
    room = Room(command=(0, 1), lower=(-1.0,), upper=(1.0,), largest=0.2)
    right = {"observation_size": 1, "action_size": 1, "acts": "change", "room": room}
    assert ActorConfig.model_validate(right).room == room
    with pytest.raises(ValidationError, match="room is about elements"):
        ActorConfig.model_validate(right | wrong)


def test_a_policy_s_targets_stay_between_the_limits() -> None:
    given = PolicyInput(VALVE)
    actor = given.shown_to(Actor(ActorConfig(observation_size=32, action_size=9, hidden=(8,)), 3))
    lower, upper = (
        torch.tensor(x) for x in (VALVE.contract.action.lower, VALVE.contract.action.upper)
    )
    seen = observed(200)
    seen[:100, AT["command"]] = upper
    command = seen[:, AT["command"]]
    wild = actor.act(seen, 5.0 * torch.randn(200, 1, 9))[:, 0]
    targets = actor.targets(wild, command)
    assert bool((targets <= upper + 1e-6).all() & (targets >= lower - 1e-6).all())
    # From a limit all of them leave room to act: none is lost.
    assert float((command - targets)[:100].std()) > 0.05


def test_what_is_drawn_are_actions_that_make_the_recorded_changes() -> None:
    seen = observed(41)
    commands = seen[:, AT["command"]]
    near = (commands[:-1] + 0.1).clamp(max=torch.tensor(VALVE.contract.action.upper))
    learner = OffPolicyLearner(VALVE, OffPolicySettings(hidden=(16,), first=20), seed=0)
    learner.add([Episode(seen.numpy(), near.numpy(), {"seed": 0})])
    given = PolicyInput(VALVE)
    expected = given.actions(seen[:-1], (near - commands[:-1]) / 0.2)
    drawn = learner.sample(200)
    equivalent = torch.cat([expected @ done.T for _, done in VALVE.equivalents])
    apart = torch.cdist(drawn.actions, equivalent).amin(1)
    assert float(apart.max()) < 1e-3
    assert float(drawn.actions.abs().max()) <= 1.0
