# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from twinloop.perception.ball_filter import BallFilter, BallFilterSettings

DT = 1.0 / 30.0


def test_it_finds_the_velocity_of_a_ball_that_moves_evenly() -> None:
    balls = BallFilter((1,))
    velocity = np.array([0.1, -0.05, 0.02])
    for frame in range(60):
        balls.update(DT, velocity * DT * (frame + 1), 1.0)
    np.testing.assert_allclose(balls.velocity[0], velocity, atol=1e-4)
    np.testing.assert_allclose(balls.position[0], velocity * DT * 60, atol=1e-5)


def test_it_is_less_noisy_than_what_it_measures() -> None:
    rng = np.random.default_rng(0)
    settings = BallFilterSettings(measurement_std_m=0.002)
    balls = BallFilter((500,), settings)
    for _ in range(60):
        measured = rng.normal(0.0, 0.002, (500, 3))
        balls.update(DT, measured, 1.0)
    assert balls.position.std() < 0.8 * 0.002


def test_errors_are_as_large_as_the_covariance_says() -> None:
    rng = np.random.default_rng(1)
    settings = BallFilterSettings(bias_std_m=0.0)
    count, q = 4000, settings.acceleration_density
    balls = BallFilter((count,), settings)
    position, velocity = np.zeros((count, 3)), rng.normal(0, 0.1, (count, 3))
    shape = np.linalg.cholesky(q * np.array([[DT**3 / 3, DT**2 / 2], [DT**2 / 2, DT]]))
    for _ in range(30):
        kick = rng.normal(size=(count, 3, 2)) @ shape.T
        position = position + velocity * DT + kick[..., 0]
        velocity = velocity + kick[..., 1]
        noise = rng.normal(0, settings.measurement_std_m, (count, 3))
        balls.update(DT, position + noise, 1.0)
    error = np.concatenate([balls.position - position, balls.velocity - velocity], axis=-1)
    np.testing.assert_allclose(np.cov(error.T)[:2, :2], balls.covariance()[0][:2, :2], atol=3e-8)
    np.testing.assert_allclose(np.var(error[:, 3:]), balls.covariance()[0, 3, 3], rtol=0.05)


def test_a_hidden_ball_goes_on_and_is_stale_after_100_ms() -> None:
    balls = BallFilter((2,))
    velocity = np.array([0.1, 0.0, 0.0])
    for frame in range(60):
        balls.update(DT, np.tile(velocity * DT * (frame + 1), (2, 1)), 1.0)
    seen_at = balls.position[0].copy()
    nowhere = np.full((2, 3), np.nan)
    nowhere[1] = balls.position[1]
    stale = []
    for _ in range(4):
        balls.update(DT, nowhere, [0.0, 1.0])
        stale.append(bool(balls.is_stale[0]))
    assert stale == [False, False, True, True]
    assert balls.position[0, 0] == pytest.approx(seen_at[0] + 0.1 * 3 * DT, abs=1e-4)
    assert balls.velocity[0, 0] == 0.0
    assert not balls.is_stale[1]
    assert balls.covariance()[0, 0, 0] > 5 * balls.covariance()[1, 0, 0]


def test_a_half_hidden_ball_is_trusted_less() -> None:
    clear, half = BallFilter((1,)), BallFilter((1,))
    for balls, fraction in ((clear, 1.0), (half, 0.5)):
        for _ in range(10):
            balls.update(DT, np.zeros((1, 3)), fraction)
        balls.update(DT, np.full((1, 3), 0.003), fraction)
    assert 0.0 < half.position[0, 0] < clear.position[0, 0]
    assert half.covariance()[0, 0, 0] > clear.covariance()[0, 0, 0]


def test_a_batch_does_what_its_balls_do_alone() -> None:
    rng = np.random.default_rng(2)
    many = BallFilter((3, 2))
    alone = [BallFilter((2,)) for _ in range(3)]
    for _ in range(20):
        measured, fraction = rng.normal(size=(3, 2, 3)), rng.integers(0, 2, (3, 2))
        many.update(DT, measured, fraction)
        for hand, balls in enumerate(alone):
            balls.update(DT, measured[hand], fraction[hand])
    for hand, balls in enumerate(alone):
        np.testing.assert_array_equal(many.position[hand], balls.position)
        np.testing.assert_array_equal(many.covariance()[hand], balls.covariance())


def test_it_carries_on_from_a_saved_state() -> None:
    rng = np.random.default_rng(3)
    first, second = BallFilter((2, 2)), BallFilter((2, 2))
    for _ in range(5):
        first.update(DT, rng.normal(size=(2, 2, 3)), 1.0)
    second.set_state(first.state())
    measured = rng.normal(size=(2, 2, 3))
    for balls in (first, second):
        balls.update(DT, measured, [[1.0, 0.0], [0.5, 1.0]])
    np.testing.assert_array_equal(first.velocity, second.velocity)
    np.testing.assert_array_equal(first.covariance(), second.covariance())


def test_it_refuses_what_it_cannot_use() -> None:
    balls = BallFilter((1,))
    with pytest.raises(ValueError, match="dt is 0"):
        balls.update(0.0, np.zeros((1, 3)), 1.0)
    with pytest.raises(ValueError, match="nan"):
        balls.update(DT, np.full((1, 3), np.nan), 1.0)
    with pytest.raises(ValueError, match="stale_after_s is -1"):
        BallFilterSettings(stale_after_s=-1)
