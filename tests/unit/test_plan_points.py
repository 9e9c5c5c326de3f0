# SPDX-License-Identifier: Apache-2.0
"""What viewers are shown of a plan is what the planner thought, and costs nothing unasked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builtin_interfaces.msg import Time
from twinloop.learning.model_file import load_model
from twinloop.nodes.planner import shipped_model
from twinloop.nodes.point_clouds import from_cloud, to_cloud
from twinloop.planners.base import ShowsRollouts
from twinloop.robots.hand24 import HAND24
from twinloop.views.plan_points import BALL, FINGERTIP, POINT, TARGET, PlanPoints, fingertips

from twinloop import contract as contracts
from twinloop import planners, tasks

CONTRACT = contracts.load("baoding")


@pytest.fixture(scope="module")
def model():
    return load_model(shipped_model("baoding"), CONTRACT).model


def observation() -> torch.Tensor:
    vector = torch.zeros(CONTRACT.observation_size)
    cup = torch.from_numpy(HAND24.poses["cup"]).float()
    vector[CONTRACT.slices["joint_position"]] = cup
    vector[CONTRACT.slices["command"]] = cup
    vector[CONTRACT.slices["ball_position"]] = torch.tensor(
        [0.03, -0.045, 0.09, -0.03, -0.045, 0.09]
    )
    return vector


@pytest.mark.parametrize("name", ["mppi", "icem", "knots"])
def test_the_cheapest_rollouts_are_kept_when_asked_for(model, name: str) -> None:
    task = tasks.make("baoding")
    planner = planners.make(name, model, task, seed=0)
    assert isinstance(planner, ShowsRollouts)
    now = observation()
    targets = task.targets(now, planner.horizon)
    plain, _ = planner.plan(now, targets)
    assert planner.best_rollouts(5) is None
    planner.keeps_rollouts = True
    planner.reset(0)
    shown, stats = planner.plan(now, targets)
    assert torch.equal(plain, shown)  # looking changes nothing
    best = planner.best_rollouts(5)
    assert best is not None
    assert best.predicted.shape == (5, planner.horizon, CONTRACT.observation_size)
    assert -best.cost[0] == pytest.approx(stats.best_return, rel=1e-5)
    assert (np.diff(best.cost) >= 0).all()
    # The cost of a rollout is that of what is shown, but for the members' spread.
    states = torch.from_numpy(best.predicted[0])
    none = torch.zeros(planner.horizon, CONTRACT.action_size)
    assert float(task.cost(states, none, targets).sum()) == pytest.approx(best.cost[0], abs=0.5)
    planner.keeps_rollouts = False
    planner.plan(now, targets)
    assert planner.best_rollouts(5) is None


def test_points_are_where_balls_fingertips_and_targets_are(model) -> None:
    task = tasks.make("baoding")
    planner = planners.make("mppi", model, task, seed=0)
    planner.keeps_rollouts = True
    now = observation()
    targets = task.targets(now, planner.horizon)
    planner.plan(now, targets)
    best = planner.best_rollouts(3)
    assert best is not None
    points = PlanPoints(CONTRACT).of(now.numpy(), best, targets.numpy(), task.target_of)
    message = to_cloud(points, Time(sec=3), "rh_palm")
    assert (from_cloud(message, POINT) == points).all()
    balls = points[points["kind"] == BALL]
    first = balls[(balls["rollout"] == 0) & (balls["body"] == 1)]
    assert first["step"].tolist() == list(range(planner.horizon + 1))
    assert first["x"][0] == pytest.approx(-0.03)
    place = CONTRACT.slices["ball_position"].start + 3
    assert first["x"][1:] == pytest.approx(best.predicted[0, :, place])
    assert first["spread"][0] == 0.0
    assert (first["spread"][1:] > 0.0).all()
    assert (balls["cost"][balls["rollout"] == 2] == best.cost[2]).all()
    aims = points[(points["kind"] == TARGET) & (points["body"] == 1)]
    assert aims["z"] == pytest.approx(targets[:, 3].numpy())
    assert aims["y"] == pytest.approx(-0.045)
    tips = points[points["kind"] == FINGERTIP]
    assert len(tips) == 5 * (planner.horizon + 1)
    now_at = fingertips(HAND24.poses["cup"])
    assert tips["y"][tips["step"] == 0] == pytest.approx(now_at[:, 1], abs=1e-6)


def test_a_cloud_of_other_fields_is_refused() -> None:
    cloud = to_cloud(np.zeros(2, [("x", "<f4")]), Time(), "rh_palm")
    with pytest.raises(ValueError, match="cloud has fields \\['x'\\]"):
        from_cloud(cloud, POINT)
