# SPDX-License-Identifier: Apache-2.0
"""The twin for depth grasping: objects, scenes, cameras, labels, lifts, data and training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from twinloop.grasping import data, heights
from twinloop.grasping.gripper import FRANKA_HAND
from twinloop.grasping.network import NetworkConfig
from twinloop.grasping.training import TrainingSettings, figures, predict, train
from twinloop_sim.grasping import depth_camera, generate, labels, objects, views
from twinloop_sim.grasping.depth_noise import NOISES
from twinloop_sim.grasping.labels import WorldGrasps
from twinloop_sim.grasping.lifts import End, lift
from twinloop_sim.grasping.scene import Scene

BRICK = "brick/001"
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # closes along x


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()
    made.files.close()


@pytest.fixture
def brick(scene: Scene) -> tuple[Scene, float, float]:
    """A brick on the table, its narrow side along x; its height and width."""
    scene.clear(False)
    rng = np.random.default_rng(0)
    shape, _ = scene.files.get(BRICK)
    size = np.ptp(np.concatenate([points for points, _ in shape.parts]), axis=0)
    body = scene.add(BRICK, [0, 0, size[2] / 2 + 0.001], [0, 0, 0, 1], rng)
    scene.run(0.3)
    assert scene.pose(body)[0][2] == pytest.approx(size[2] / 2, abs=0.002)
    return scene, float(size[2]), float(size[0])


def test_no_object_is_in_two_sets() -> None:
    found = [objects.names(split) for split in objects.SPLITS]
    assert len(set().union(*found)) == sum(len(one) for one in found)
    assert all(len(one) >= 50 for one in found)
    with pytest.raises(ValueError, match="expected one of train, val, test, adversarial"):
        objects.names("all")


@pytest.mark.parametrize("split", objects.SPLITS)
def test_objects_are_the_same_again_and_closed_solids(split: str) -> None:
    known = objects.names(split)
    for name in known[:: len(known) // 12]:
        try:
            one, again = objects.make(name), objects.make(name)
        except ValueError:
            # Some of pybullet_data's are not fit; ours all are.
            if not name.startswith("random/"):
                raise
            continue
        assert 0.01 < one.size_m < 0.12
        for (points, faces), (others, _) in zip(one.parts, again.parts, strict=True):
            assert np.array_equal(points, others)
            # Every edge belongs to two faces, once in each direction.
            edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
            assert {tuple(e) for e in edges} == {tuple(e) for e in edges[:, ::-1]}


def test_equal_seeds_drop_equal_heaps(scene: Scene) -> None:
    places = []
    for _ in range(2):
        views.fill(scene, "train", 3, True, np.random.default_rng(4))
        places.append([scene.pose(body)[0] for body in scene.items])
    assert np.array_equal(places[0], places[1])
    assert all(abs(x) < 0.2 and abs(y) < 0.16 and 0.0 < z < 0.1 for x, y, z in places[0])


@pytest.mark.parametrize("model", depth_camera.MODELS)
def test_the_camera_sees_heights_as_they_are(brick: tuple[Scene, float, float], model: str) -> None:
    scene, height, _ = brick
    camera = depth_camera.look_down(model, 0.65, (0.1, -0.05), 0.4)
    depth, bodies = depth_camera.render(scene, camera)
    seen = heights.build(depth, camera.camera)
    assert seen.heights.max() == pytest.approx(height, abs=0.003)
    (body,) = scene.items
    row, column = np.nonzero(bodies == body)
    middle = camera.camera.project(camera.into_camera(np.array([0.0, 0.0, height / 2])))
    assert [column.mean(), row.mean()] == pytest.approx(middle, abs=12)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_drawn_from_its_seed_and_looks_like_a_camera(
    brick: tuple[Scene, float, float], noise: str
) -> None:
    scene, _, _ = brick
    camera = depth_camera.look_down()
    depth, bodies = depth_camera.render(scene, camera)
    one, again = (NOISES[noise](depth, bodies, 525.0, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one, again)
    error = (one - depth)[one > 0]
    assert np.isfinite(one).all()
    assert np.median(np.abs(error)) < 0.006
    holes = float((one == 0).mean())
    if noise == "ideal":
        assert not error.any()
    else:
        assert np.abs(error).max() > 0.0005
    if noise in ("structured_light", "d435"):
        assert 1e-4 < holes < 0.3  # at least the brick's shadow


def grasp(tip: float, width: float, x: float = 0.0) -> WorldGrasps:
    return WorldGrasps(np.array([[x, 0.0, tip]]), DOWN[None], np.array([width]))


def test_labels_know_a_good_grasp_from_air_and_from_a_collision(
    brick: tuple[Scene, float, float],
) -> None:
    scene, height, width = brick
    tip, rng = height - 0.03, np.random.default_rng(0)
    worth = [
        labels.robust_quality(scene, one, FRANKA_HAND, rng)[0]
        for one in (
            grasp(tip, width + 0.02),
            grasp(tip, width + 0.02, x=0.15),
            grasp(tip, width - 0.01),
            grasp(-0.004, width + 0.02),
        )
    ]
    assert worth[0] > 0.8
    assert worth[1:] == [0.0, 0.0, 0.0]


def test_lifts_end_as_the_grasp_deserves(brick: tuple[Scene, float, float]) -> None:
    scene, height, width = brick
    before = scene.client.saveState()
    ends = []
    for tip, opening, x in (
        (height - 0.03, width + 0.02, 0.0),
        (height - 0.03, width + 0.02, 0.15),
        (height - 0.03, width - 0.01, 0.0),
    ):
        found = lift(scene, np.array([x, 0.0, tip]), DOWN, opening, FRANKA_HAND)
        ends.append(found.end)
        scene.client.restoreState(before)
    assert ends == [End.HELD, End.MISSED, End.BLOCKED]


def test_data_follow_from_their_number_and_train_a_network(tmp_path, monkeypatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(generate, "SCENES_IN_PART", 1)
    assert generate.generate(tmp_path, 1, "train") == 1
    (path,) = tmp_path.iterdir()
    written_ns = path.stat().st_mtime_ns
    assert generate.generate(tmp_path, 1, "train") == 1
    assert path.stat().st_mtime_ns == written_ns
    again = generate.make_part("train", 0)
    samples = data.load(tmp_path, "train")
    assert np.array_equal(again["labels"], samples.labels.numpy())
    assert np.array_equal(again["crops"], samples.crops.numpy())
    assert ((samples.labels >= 0) & (samples.labels <= 1)).all()
    config = NetworkConfig(channels=(4, 4, 4), hidden=8)
    losses: list[float] = []
    network = train(
        samples,
        TrainingSettings(epochs=12, batch=64, rate=5e-3),
        0,
        config,
        lambda step, steps, loss: losses.append(loss),
    )
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    found = figures(predict(network, samples), samples.labels.double().numpy())
    assert 0.0 <= found["average_precision"] <= 1.0


def test_damaged_data_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds no parts of split 'train'"):
        data.load(tmp_path, "train")
    (tmp_path / "train-00000.npz").write_bytes(b"PK\x03\x04nonsense")
    with pytest.raises(ValueError, match="train-00000"):
        data.load(tmp_path, "train")
