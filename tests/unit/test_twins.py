# SPDX-License-Identifier: Apache-2.0
from dataclasses import fields

import numpy as np
import pytest
from twinloop.robots.hand24 import HAND24
from twinloop_sim.render import renderer
from twinloop_sim.settings import SceneSettings, bullet_settings, scene_settings
from twinloop_sim.tracker_standin import into_palm
from twinloop_sim.twin import ENGINES, State, make_batch, make_twin

SLOW_SECONDS = {"mujoco": 10.0, "pybullet": 2.0}


def wiggle(ticks: int, seed: int = 0) -> np.ndarray:
    """Joint targets [ticks, 24] that move about the cup pose."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, 0.01, (ticks, 24)).cumsum(axis=0)
    return np.clip(HAND24.poses["cup"] + steps, HAND24.lower, HAND24.upper)


def assert_same(first: State, second: State) -> None:
    for field in fields(State):
        np.testing.assert_array_equal(
            getattr(first, field.name), getattr(second, field.name), err_msg=field.name
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_seeds_and_actions_end_in_equal_states(engine: str) -> None:
    twins = [make_twin(engine), make_twin(engine)]
    twins[1].reset(99)  # what a twin did before must not matter
    twins[1].step(wiggle(30, seed=9))
    ends = []
    for twin in twins:
        twin.reset(7)
        ends.append(twin.step(wiggle(60)))
        twin.close()
    assert_same(*ends)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_shifts_the_start_a_little(engine: str) -> None:
    twin = make_twin(engine)
    first, second = twin.reset(0), twin.reset(1)
    twin.close()
    shift = np.linalg.norm(first.ball_position - second.ball_position, axis=-1)
    assert (shift > 1e-5).all()
    assert (shift < 0.015).all()
    assert first.time == 0.0


@pytest.mark.parametrize("engine", ENGINES)
def test_the_state_does_not_depend_on_how_ticks_are_cut_into_calls(engine: str) -> None:
    twin = make_twin(engine)
    ctrl = wiggle(40)
    twin.reset(0)
    whole = twin.step(ctrl)
    twin.reset(0)
    for part in (ctrl[:1], ctrl[1:13], ctrl[13:]):
        last = twin.step(part)
    twin.close()
    assert_same(whole, last)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_saved_state_goes_on_bit_exactly_in_another_twin(engine: str) -> None:
    twin, other = make_twin(engine), make_twin(engine)
    twin.reset(0)
    twin.step(wiggle(25))
    saved = twin.get_state()
    expected = twin.step(wiggle(40, seed=1))
    other.reset(3)
    other.set_state(saved)
    assert_same(expected, other.step(wiggle(40, seed=1)))
    twin.close()
    other.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_balls_lie_still_in_the_cup(engine: str) -> None:
    batch = make_batch(engine, 1)
    start = batch.reset([0])
    ticks = round(SLOW_SECONDS[engine] / batch.tick_s)
    states = batch.step(np.repeat(batch.rest[:, None], ticks, axis=1))
    batch.close()
    moved = np.linalg.norm(states.ball_position[0] - start.ball_position, axis=-1)
    assert moved.max() < 5e-4
    late = states.ball_position[0, -ticks // 5 :]
    assert np.ptp(late, axis=0).max() < 1e-4


def test_hand_and_balls_have_the_friction_of_the_settings_in_pybullet() -> None:
    batch = make_batch("pybullet", 1)
    world = batch._worlds[0]
    links = range(-1, world._client.getNumJoints(world._hand))
    bodies = [(world._hand, link) for link in links] + [(ball, -1) for ball in world._balls]
    found = {world._client.getDynamicsInfo(*body)[1] for body in bodies}
    batch.close()
    assert found == {bullet_settings().friction[0]}


def test_both_engines_settle_into_the_same_cup() -> None:
    places = []
    for engine in ENGINES:
        twin = make_twin(engine)
        places.append(into_palm(twin.reset(0))[0])
        twin.close()
    assert np.linalg.norm(places[0] - places[1], axis=-1).max() < 0.006


def test_a_hand_in_a_batch_does_what_it_does_alone_on_any_number_of_threads() -> None:
    ctrl = np.stack([wiggle(50, seed) for seed in range(5)])
    ends = []
    for threads in (1, 2):
        batch = make_batch("mujoco", 5, threads=threads)
        batch.reset(range(5))
        ends.append(batch.step(ctrl)[:, -1])
        batch.close()
    assert_same(*ends)
    alone = make_twin("mujoco")
    alone.reset(3)
    assert_same(ends[0][3], alone.step(ctrl[3]))
    alone.close()


def test_some_hands_can_be_reset_while_others_go_on() -> None:
    batch = make_batch("mujoco", 3)
    batch.reset([0, 1, 2])
    before = batch.step(np.stack([wiggle(20)] * 3))[:, -1]
    after = batch.reset([5], hands=[1])
    fresh = make_twin("mujoco")
    assert_same(after[1], fresh.reset(5))
    assert_same(after[0], before[0])
    assert_same(after[2], before[2])
    fresh.close()
    batch.close()


def test_every_tick_of_a_batch_is_reported() -> None:
    batch = make_batch("mujoco", 2)
    batch.reset([0, 1])
    states = batch.step(np.stack([wiggle(7)] * 2))
    batch.close()
    assert states.q.shape == (2, 7, 24)
    np.testing.assert_allclose(states.time, np.tile(np.arange(1, 8) * 0.01, (2, 1)))


def test_a_ball_off_the_hand_falls_to_the_floor() -> None:
    scene = scene_settings()
    balls = scene.balls.model_copy(update={"start_m": ((0.3, 0.0, 0.2), (0.03, 0.01, 0.195))})
    twin = make_twin("mujoco", scene.model_copy(update={"balls": balls}))
    state = twin.reset(0)
    twin.close()
    assert state.ball_position[0, 2] == pytest.approx(0.028, abs=0.002)
    assert state.ball_position[1, 2] > 0.15


@pytest.mark.parametrize("engine", ENGINES)
def test_bad_input_is_refused_and_changes_nothing(engine: str) -> None:
    batch = make_batch(engine, 1)
    batch.reset([0])
    before = batch.state()
    broken = wiggle(5)[None]
    broken[0, 3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        batch.step(broken)
    with pytest.raises(ValueError, match=r"\(1, ticks, 24\), got \(1, 5, 23\)"):
        batch.step(broken[..., :23])
    with pytest.raises(ValueError, match="at least one tick"):
        batch.step(broken[:, :0])
    with pytest.raises(ValueError, match="1 hands need 1 seeds"):
        batch.reset([1, 2])
    with pytest.raises(ValueError, match="must not be negative"):
        batch.reset([-1])
    with pytest.raises(ValueError, match="expected"):
        batch.set_state([b"nonsense"])
    assert_same(before, batch.state())
    batch.close()


def test_unknown_engines_and_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="gazelle"):
        make_twin("gazelle")
    settings = scene_settings().model_dump()
    settings["balls"]["radius_m"] = -1.0
    with pytest.raises(ValueError, match="radius_m"):
        SceneSettings.model_validate(settings)
    with pytest.raises(ValueError, match="link, or eye and target"):
        SceneSettings.model_validate(
            {
                **scene_settings().model_dump(),
                "cameras": {"c": {"size": (2, 2), "oversample": 1, "horizontal_fov_deg": 60}},
            }
        )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("camera", ["overview", "left", "right"])
def test_cameras_see_both_balls_and_the_hand(engine: str, camera: str) -> None:
    twin = make_twin(engine)
    twin.reset(0)
    image = twin.render(camera).astype(int)
    twin.close()
    width, height = scene_settings().cameras[camera].size
    assert image.shape == (height, width, 3)
    red, green, blue = np.moveaxis(image, -1, 0)
    balls = [red > 3 * np.maximum(green, blue), blue > 1.4 * np.maximum(red, 0.75 * green) + 30]
    share = [mask.mean() for mask in balls]
    assert min(share) > 0.008
    skin = (red > green + 15) & (green > blue) & ~balls[0]
    assert skin.mean() > 0.03
    if camera != "overview":
        columns = [np.nonzero(mask)[1].mean() for mask in balls]
        assert columns[0] < columns[1]  # ball 0 lies on the side of the little finger


def test_a_camera_that_is_not_there_is_refused_by_name() -> None:
    twin = make_twin("mujoco")
    with pytest.raises(ValueError, match="rear"):
        twin.render("rear")
    with pytest.raises(ValueError, match="one scene"):
        renderer(twin.batch.scene).draw(twin.batch.state())
    twin.close()
