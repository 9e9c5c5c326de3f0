# SPDX-License-Identifier: Apache-2.0
"""Dynamics models: what they keep, what they know, and what they refuse to load."""

from __future__ import annotations

import json

import mujoco
import numpy as np
import pytest
import safetensors.torch
import torch
import xacro
from twinloop.contract import load as load_contract
from twinloop.models import Ensemble, ModelInvalid, from_tensors
from twinloop.models import new_model as make_model
from twinloop.models.baoding import BALL_RADIUS_M, new_model
from twinloop.models.ensemble import EnsembleConfig
from twinloop.models.kinematics import chain_table
from twinloop.models.link_geometry import LinkGeometry, LinkGeometryConfig
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24

torch.set_num_threads(1)
SLICES = load_contract("baoding").slices
CUP = torch.tensor(HAND24.poses["cup"], dtype=torch.float32)


@pytest.fixture(scope="module")
def urdf() -> str:
    return xacro.process_file(str(share("urdf", "hand.urdf.xacro"))).toxml()


def plain(seed: int = 0) -> Ensemble:
    return Ensemble(
        EnsembleConfig(observation_size=5, action_size=2, members=3, hidden=(8,), known=(3, 5)),
        seed,
    )


def baoding() -> Ensemble:
    return new_model(seed=1, members=2, hidden=(16, 16)).requires_grad_(False)


def observations(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hands about the cup with balls above the palm: [N, O] and actions [N, A]."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    result = torch.zeros(rows, 84)
    result[:, SLICES["joint_position"]] = CUP + 0.05 * noise(rows, 24)
    result[:, SLICES["joint_velocity"]] = 0.3 * noise(rows, 24)
    result[:, SLICES["command"]] = CUP + 0.05 * noise(rows, 24)
    balls = torch.tensor([-0.03, -0.035, 0.11, 0.024, -0.033, 0.125])
    result[:, SLICES["ball_position"]] = balls + 0.01 * noise(rows, 6)
    result[:, SLICES["ball_velocity"]] = 0.05 * noise(rows, 6)
    return result, CUP + 0.05 * noise(rows, 24)


@pytest.mark.parametrize("make", [plain, baoding])
def test_a_model_predicts_the_same_after_a_round_trip_through_a_file(make) -> None:
    model = make()
    config = json.loads(json.dumps(model.config_json()))
    tensors = safetensors.torch.load(safetensors.torch.save(model.state_tensors()))
    copy = from_tensors(config, tensors)
    seen = torch.randn(model.members, 7, model.observation_size) * 0.1
    act = torch.randn(7, model.action_size) * 0.1
    assert torch.equal(copy.predict(seen, act), model.predict(seen, act))
    assert not any(weight.requires_grad for weight in copy.parameters())


@pytest.mark.parametrize("make", [plain, baoding])
def test_the_next_command_is_the_action_and_is_not_predicted(make) -> None:
    model = make()
    where = slice(*model.config.known)
    act = torch.randn(7, model.action_size)
    following = model.predict(torch.randn(model.members, 7, model.observation_size), act)
    assert torch.equal(following[..., where], act.expand(model.members, -1, -1))
    assert not model.predicted[where].any()
    assert int(model.predicted.sum()) == model.observation_size - model.action_size


def test_members_start_from_different_weights_and_a_seed_fixes_them() -> None:
    weight = plain(3).state_tensors()["network.layers.0.weight"]
    assert torch.equal(weight, plain(3).state_tensors()["network.layers.0.weight"])
    assert not torch.equal(weight, plain(4).state_tensors()["network.layers.0.weight"])
    assert not torch.equal(weight[0], weight[1])


def test_a_rollout_for_planning_is_the_one_for_training_with_scales_and_constants() -> None:
    sizes = {"observation_size": 7, "action_size": 2, "members": 2, "hidden": (16, 8)}
    model = Ensemble(EnsembleConfig(**sizes, known=(3, 5), constant=(5, 7)), seed=1)
    rows = 3.0 + 0.1 * torch.randn(50, 7)
    model.normalise(rows, 1.0 + torch.randn(50, 2), rows + 0.2 * torch.randn(50, 7))
    seen, actions = rows[:4].expand(2, -1, -1), torch.randn(5, 4, 2)
    slow = model.rollout(seen, actions)
    with torch.no_grad():
        quick = model.rollout(seen, actions)
    assert torch.allclose(quick, slow, atol=1e-4)
    assert torch.equal(quick[..., 5:], seen[..., 5:].expand(5, -1, -1, -1))
    assert torch.equal(quick[..., 3:5], actions[:, None].expand(-1, 2, -1, -1))


def test_a_frozen_rollout_keeps_the_weights_that_it_was_made_of() -> None:
    sizes = {"observation_size": 5, "action_size": 2, "members": 3, "hidden": (8, 8, 8)}
    model = Ensemble(EnsembleConfig(**sizes), seed=1)
    seen, actions = torch.randn(3, 4, model.observation_size), torch.randn(5, 4, model.action_size)
    frozen = model.frozen_rollout()
    with torch.no_grad():
        before = model.rollout(seen, actions)
        for weight in model.parameters():
            weight.mul_(2.0)
        assert torch.equal(frozen(seen, actions), before)
        assert not torch.allclose(model.rollout(seen, actions), before)


@pytest.mark.parametrize("task", ["pushing", "baoding", "valve", "cube", "pencil"])
def test_a_prediction_is_the_observation_and_its_change(task: str) -> None:
    model = make_model(task, seed=1, members=2, hidden=(8,))
    seen = 0.1 * torch.randn(2, 4, model.observation_size)
    action = 0.1 * torch.randn(4, model.action_size)
    change = model.difference(seen, action) * model.difference_scale
    predicted = model.predicted
    guess = model.predict(seen, action)[..., predicted]
    torch.testing.assert_close(guess, (seen + change)[..., predicted])


def test_what_is_predicted_lies_between_what_is_given() -> None:
    def ranges(**given: tuple[int, int]) -> list[slice]:
        return EnsembleConfig(observation_size=9, action_size=2, **given).predicted_ranges

    assert ranges() == [slice(0, 9)]
    assert ranges(known=(0, 2)) == [slice(2, 9)]
    assert ranges(known=(3, 5), constant=(7, 9)) == [slice(0, 3), slice(5, 7)]
    with pytest.raises(ValueError, match="nothing is predicted"):
        ranges(known=(7, 9), constant=(0, 8))


@pytest.mark.parametrize("make", [plain, baoding])
def test_a_rollout_is_repeated_prediction_and_shared_actions_are_each_members_own(make) -> None:
    model = make()
    seen = torch.randn(model.members, 4, model.observation_size) * 0.1
    actions = torch.randn(3, 4, model.action_size) * 0.1
    states = model.rollout(seen, actions)
    assert states.shape == (3, model.members, 4, model.observation_size)
    for action, state in zip(actions, states, strict=True):
        own = action.expand(model.members, -1, -1)
        assert torch.allclose(model.predict(seen, action), model.predict(seen, own), atol=1e-6)
        seen = model.predict(seen, action)
        assert torch.equal(seen, state)


def test_an_element_that_never_changes_does_not_divide_by_zero() -> None:
    model = plain()
    rows = torch.randn(50, 5)
    rows[:, 1] = 2.0
    model.normalise(rows, torch.randn(50, 2), rows)
    assert model.observation_scale[1] == 1.0
    assert torch.isfinite(model.predict(rows.expand(3, -1, -1), torch.zeros(50, 2))).all()


def test_swapping_the_balls_swaps_what_is_predicted_of_them() -> None:
    model = baoding()
    seen, act = observations(20)
    following = act[:, 0].new_zeros(20, 84) + seen + 0.01 * torch.randn(20, 84)
    model.normalise(seen, act, following)
    swap = torch.arange(84)
    for name in ("ball_position", "ball_velocity"):
        swap[SLICES[name]] = swap[SLICES[name]].roll(3)
    straight = model.predict(seen.expand(2, -1, -1), act)
    crossed = model.predict(seen[:, swap].expand(2, -1, -1), act)
    balls = slice(SLICES["ball_position"].start, SLICES["ball_velocity"].stop)
    assert torch.allclose(straight[..., swap][..., balls], crossed[..., balls], atol=1e-5)
    assert not torch.allclose(straight[..., balls], crossed[..., balls], atol=1e-5)


def test_links_lie_where_the_simulator_has_them(urdf) -> None:
    table = chain_table(urdf, "rh_palm", HAND24.joint_names)
    geometry = LinkGeometry(LinkGeometryConfig.of(table), table)
    extra = '<mujoco><compiler discardvisual="true" fusestatic="false"/></mujoco></robot>'
    engine = mujoco.MjModel.from_xml_string(urdf.replace("</robot>", extra))
    data = mujoco.MjData(engine)
    rng = np.random.default_rng(0)
    shapes = {int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_BOX)}
    geoms = [g for g in range(engine.ngeom) if int(engine.geom_type[g]) in shapes]
    for _ in range(3):
        angles = rng.uniform(HAND24.lower, HAND24.upper)
        for name, angle in zip(HAND24.joint_names, angles, strict=True):
            data.qpos[engine.joint(name).qposadr[0]] = angle
        mujoco.mj_forward(engine, data)
        palm = data.body("rh_palm")
        places = (data.geom_xpos[geoms] - palm.xpos) @ palm.xmat.reshape(3, 3)
        centers, _ = geometry.links(torch.tensor(angles, dtype=torch.float32)[None])
        for center in centers[:, :, 0].T.numpy():
            assert np.linalg.norm(places - center, axis=1).min() < 1e-5


def test_gaps_are_distances_to_surfaces_and_point_at_the_ball(urdf) -> None:
    table = chain_table(urdf, "rh_palm", HAND24.joint_names)
    geometry = LinkGeometry(LinkGeometryConfig.of(table), table)
    center, half = geometry.links(CUP[None])
    away = torch.tensor([0.0, -1.0, 0.0])
    link = 5
    axis = torch.nn.functional.normalize(half[:, link, 0], dim=0)
    away = torch.nn.functional.normalize(away - (away @ axis) * axis, dim=0)
    place = center[:, link, 0] + (float(table.link_radius[link]) + 0.02) * away
    gap, direction = geometry.gaps(place[:, None, None], (center, half))
    assert torch.isclose(gap[0, link, 0], torch.tensor(0.02), atol=1e-6)
    assert torch.allclose(direction[:, 0, link, 0], away, atol=1e-4)
    above_palm = torch.tensor([0.011, -0.011 - BALL_RADIUS_M, 0.038])
    gap, direction = geometry.gaps(above_palm[:, None, None], (center, half))
    box = len(table.link_radius)
    assert torch.isclose(gap[0, box, 0], torch.tensor(BALL_RADIUS_M), atol=1e-6)
    assert torch.allclose(direction[:, 0, box, 0], torch.tensor([0.0, -1.0, 0.0]), atol=1e-6)


def test_a_urdf_that_does_not_fit_is_refused_by_name(urdf) -> None:
    with pytest.raises(ValueError, match="no link 'palm'"):
        chain_table(urdf, "palm", HAND24.joint_names)
    with pytest.raises(ValueError, match="none of the robot's joints"):
        chain_table(urdf, "rh_palm", HAND24.joint_names[:5])


def test_damaged_tensors_are_refused_by_name() -> None:
    model = plain()
    config, good = model.config_json(), model.state_tensors()
    name = "network.layers.1.weight"

    def refused(match: str, **changed: torch.Tensor) -> None:
        with pytest.raises(ModelInvalid, match=match):
            from_tensors(config, {**good, **changed})

    nan = good[name].clone()
    nan[1, 0, 0] = float("nan")
    refused(f"{name} has 1 values that are NaN", **{name: nan})
    refused(f"{name} has shape", **{name: good[name][:2].clone()})
    refused(f"{name} is torch.float64", **{name: good[name].double()})
    refused("not expected: .'spam'", spam=torch.zeros(1))
    refused("difference_scale has values <= 0", difference_scale=torch.zeros(5))
    with pytest.raises(ModelInvalid, match=f"missing: ..{name}"):
        from_tensors(config, {k: v for k, v in good.items() if k != name})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "pickle"}, "kind is 'pickle'"),
        ({"members": 0}, "members"),
        ({"members": "many"}, "members"),
        ({"known": [4, 6]}, "known"),
        ({"hidden": [0]}, "hidden"),
        ({"spam": 1}, "spam"),
    ],
)
def test_a_damaged_config_is_refused_by_name(changes, match) -> None:
    model = plain()
    with pytest.raises(ModelInvalid, match=match):
        from_tensors({**model.config_json(), **changes}, model.state_tensors())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("joint_position",), [80, 104]),
        (("ball_position",), [72, 77]),
        (("known",), None),
        (("geometry", "joint_index"), [[99]]),
        (("geometry", "joint_index"), [[0, 1], [2]]),
        (("geometry", "joint_index"), [[-2]]),
        (("geometry", "link_joint"), [[7, 0]]),
    ],
)
def test_a_hand_whose_layout_does_not_fit_is_refused(path, value) -> None:
    model = baoding()
    config = model.config_json()
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ModelInvalid, match=path[-1]):
        from_tensors(config, model.state_tensors())
