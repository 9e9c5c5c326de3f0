# SPDX-License-Identifier: Apache-2.0
"""A robot shared with a pilot: both ends of alpha are exact; between them he keeps what is safe.

A cart is pushed along a line; its place costs nothing up to a wall, and much beyond.
"""

from __future__ import annotations

from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.contract import MalformedMessage
from twinloop.planners.mppi import MPPI, MPPIConfig
from twinloop.planners.pilot import FRESH_S, PilotCommand
from twinloop.planners.shared import SharedMPPI, pilot_share
from twinloop.planners.space import ActionSpace
from worthy_acts import ACTS, nearest_worthy

from twinloop import contract as contracts
from twinloop import planners

torch.set_num_threads(1)
WALL, MARGIN = 1.0, 0.2
CHANGE = 0.5
SPACE = ActionSpace(torch.full((2,), -1.0), torch.full((2,), 1.0), CHANGE)
TARGET = torch.zeros(8, 1)
ALPHAS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


class Cart:
    """Knows the cart exactly: place, speed, and the command in force [2]; the second element of an
    action moves nothing."""

    members = 1
    proposal = None
    observation_size = 4
    action_size = 2

    def __init__(self, is_broken: bool = False) -> None:
        self.is_broken = is_broken

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        action = action.expand(observation.shape[0], -1, -1)
        speed = 0.7 * observation[..., 1] + 0.3 * action[..., 0]
        place = observation[..., 0] + 0.3 * speed
        if self.is_broken:
            place = place * torch.nan
        return torch.cat([torch.stack([place, speed], -1), action], -1)

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        states = []
        for action in actions:
            observation = self.predict(observation, action)
            states.append(observation)
        return torch.stack(states)


class StayBefore:
    """Costs a little for haste, something before the wall, and much beyond it."""

    name = "stay_before"
    observation_size = 4
    action_size = 2
    command = slice(2, 4)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        place = observation[..., 0]
        haste = 0.01 * (observation[..., 1].square() + action.square().sum(-1))
        return haste + (place - WALL + MARGIN).clamp(min=0.0) + 100.0 * (place > WALL)


def config() -> MPPIConfig:
    changes = {"samples": 300, "horizon": 8, "sigma": 0.5, "kappa": 20.0, "range_share": 1.0}
    made = planners.load_config("mppi", "", **changes)
    assert isinstance(made, MPPIConfig)
    return made


def shared(alpha: float, is_broken: bool = False, rows: int = 1) -> SharedMPPI:
    model: Any = Cart(is_broken)
    task: Any = StayBefore()
    planner = SharedMPPI(model, task, SPACE, config(), 0)
    planner.alpha = alpha
    planner.reset_batch(list(range(5, 5 + rows)))
    return planner


def alone() -> MPPI:
    model: Any = Cart()
    task: Any = StayBefore()
    planner = MPPI(model, task, SPACE, config(), 0)
    planner.reset(5)
    return planner


def drive(planner: MPPI, wishes: Tensor) -> tuple[Tensor, list[float | None]]:
    """Return the observations [T, 4] of a cart whose pilot wishes so [T, 2], and what survived."""
    seen, shares = [torch.zeros(4)], []
    for wish in wishes:
        if isinstance(planner, SharedMPPI):
            planner.pilot = wish[None]
        action, stats = planner.plan(seen[-1], TARGET)
        shares.append(stats.pilot_share)
        seen.append(Cart().predict(seen[-1][None, None], action[None, None])[0, 0])
    return torch.stack(seen), shares


def wishes(seed: int = 0) -> Tensor:
    """Return what a pilot wants who is within reach of a step: [12, 2]."""
    steps = torch.randn(12, 2, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)
    return 0.24 * steps  # two in a row are never further apart than a step allows


def test_alpha_one_is_autonomy_bit_for_bit() -> None:
    ours, _ = drive(shared(1.0), wishes())
    theirs, _ = drive(alone(), wishes())
    assert torch.equal(ours, theirs)


def test_alpha_zero_is_the_pilot_bit_for_bit() -> None:
    wanted = wishes()
    seen, shares = drive(shared(0.0), wanted)
    assert torch.equal(seen[1:, 2:], wanted)
    assert shares == [1.0] * len(wanted)


def test_a_pilot_is_kept_within_limits_and_reach_of_a_step() -> None:
    seen, _ = drive(shared(0.0), torch.tensor([[9.0, -9.0]] * 4))
    commands = seen[1:, 2:]
    assert torch.equal(commands[0], torch.tensor([CHANGE, -CHANGE]))
    assert torch.equal(commands[-1], torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("nobody", [None, torch.full((1, 2), torch.nan)])
def test_without_a_pilot_autonomy_goes_on_and_holds_where_it_has_no_say(nobody: Any) -> None:
    observation = torch.tensor([1.2, 0.0, 0.3, -0.2])
    for alpha in (0.0, 0.3, 1.0):
        planner = shared(alpha)
        planner.pilot = nobody
        action, stats = planner.plan(observation, TARGET)
        expected = observation[2:] if alpha == 0 else alone().plan(observation, TARGET)[0]
        assert torch.equal(action, expected)
        assert stats.pilot_share is None


def test_a_pilot_who_drives_at_the_wall_passes_it_alone_and_not_assisted() -> None:
    forward = torch.tensor([[1.0, 0.8]] * 25)
    assert float(drive(shared(0.0), forward)[0][:, 0].max()) > 3 * WALL
    for alpha in (0.05, 0.5, 0.9, 1.0):
        assert float(drive(shared(alpha), forward)[0][:, 0].max()) < WALL
    # Far from the wall he has his way; at it he is held back, and stays near.
    seen, shares = drive(shared(0.4), forward)
    assert shares[:3] == [1.0] * 3
    assert min(share for share in shares if share is not None) < 0.3
    assert float(seen[-1, 0]) > WALL - 2 * MARGIN


def test_the_more_autonomy_has_the_less_of_the_pilot_survives() -> None:
    observation = torch.tensor([0.5, 0.5, 0.4, 0.1])
    wish = torch.tensor([[0.9, 0.6]])
    away = []
    for alpha in ALPHAS:
        planner = shared(alpha)
        planner.pilot = wish
        action, _ = planner.plan(observation, TARGET)
        away.append(float((action - wish[0]).norm()))
    assert away[0] == 0.0
    assert away == sorted(away)
    assert away[3] < away[-1]


def test_a_broken_model_holds_the_last_command() -> None:
    planner = shared(0.5, is_broken=True)
    planner.pilot = torch.tensor([[0.9, 0.6]])
    observation = torch.tensor([0.8, 0.5, 0.4, 0.1])
    action, stats = planner.plan(observation, TARGET)
    assert torch.equal(action, observation[2:])
    assert stats.nan_rollouts == config().samples


def test_robots_of_a_batch_have_pilots_of_their_own() -> None:
    observation = torch.tensor([[0.8, 0.5, 0.4, 0.1]] * 3)
    wish = torch.tensor([[0.9, 0.6], [torch.nan, torch.nan], [0.2, -0.1]])
    planner = shared(0.5, rows=3)
    planner.pilot = wish
    actions, stats = planner.plan_batch(observation, TARGET.expand(3, -1, -1))
    for row in range(3):
        single = shared(0.5)
        single.reset(5 + row)
        single.pilot = wish[row : row + 1]
        action, one = single.plan(observation[row], TARGET)
        torch.testing.assert_close(actions[row], action)
        assert stats[row].pilot_share == pytest.approx(one.pilot_share)
    assert stats[1].pilot_share is None


def test_what_survives_of_a_pilot_is_a_share_of_the_way_to_autonomy() -> None:
    wanted, autonomy = torch.zeros(4, 2), torch.tensor([[0.0, 1.0]] * 4)
    action = torch.tensor([[0.0, 0.0], [0.0, 0.25], [0.0, 1.0], [0.0, 2.0]])
    assert pilot_share(action, wanted, autonomy).tolist() == [1.0, 0.75, 0.0, 0.0]
    assert pilot_share(wanted, wanted, wanted).tolist() == [1.0] * 4


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    planner = shared(0.5)
    with pytest.raises(ValueError, match="expected 0 .* to 1"):
        planner.alpha = alpha
    assert planner.alpha == 0.5


def test_commands_for_another_number_of_robots_are_refused() -> None:
    planner = shared(0.5)
    planner.pilot = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"command is \[2, 2\], expected \[1, 2\]"):
        planner.plan(torch.zeros(4), TARGET)


def command(names: list[str], positions: list[float]) -> Any:
    return Message(joint_names=names, points=[Message(positions=positions)])


def test_a_pilots_command_is_read_by_joint_names_and_lasts_a_tenth_of_a_second() -> None:
    contract = contracts.load("baoding")
    names = list(contract.action.elements)
    pilot = PilotCommand(contract)
    assert pilot.targets(0.0) is None
    values = np.linspace(-0.1, 0.5, len(names))
    pilot.feed(command(names[::-1], values[::-1].tolist()), arrived_s=7.0)
    targets = pilot.targets(7.0 + FRESH_S)
    assert targets is not None
    torch.testing.assert_close(targets[0], torch.from_numpy(values).float())
    assert pilot.targets(7.0 + FRESH_S + 0.001) is None
    for bad in (
        command(names[1:], values[1:].tolist()),
        command(names, [float("nan"), *values[1:]]),
        Message(joint_names=names, points=[]),
    ):
        with pytest.raises(MalformedMessage):
            pilot.feed(bad, arrived_s=8.0)
    assert pilot.targets(8.0) is None


# Values of (main, side): off left, off, off right, on left, on, on right; all negative, as returns
# of a lander mostly are.
VALUES = [-100.0, -60.0, -90.0, -50.0, -20.0, -10.0]


@pytest.mark.parametrize(
    ("wanted", "tolerance", "done"),
    [
        ((1, 0), 0.2, (1, 0)),  # worth 80 of 90 over the worst: as wanted
        ((1, 0), 0.1, (1, 1)),  # not enough: the same main engine, and the best side
        ((0, 0), 0.5, (1, 0)),  # no side makes this main engine worth it: the same side
        ((0, -1), 0.3, (1, 1)),  # nothing near is worth enough: the best
        ((0, -1), 0.0, (1, 1)),
        ((0, -1), 1.0, (0, -1)),
    ],
)
def test_of_acts_the_nearest_is_done_that_is_worth_a_share_of_the_best(
    wanted: tuple[int, int], tolerance: float, done: tuple[int, int]
) -> None:
    value = torch.tensor([VALUES])
    for shift in (0.0, 1000.0):
        act = nearest_worthy(value + shift, torch.tensor([ACTS.index(wanted)]), tolerance)
        assert ACTS[int(act)] == done
