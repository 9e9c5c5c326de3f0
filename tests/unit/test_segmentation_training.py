# SPDX-License-Identifier: Apache-2.0
"""Training of heap segmentation: data of the twin, targets, passes that are carried on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from twinloop.cli.errors import CommandError
from twinloop.cli.grasping import app
from twinloop.grasping.segmentation import data, weights
from twinloop.grasping.segmentation.accuracy import Accuracy
from twinloop.grasping.segmentation.grouping import group
from twinloop.grasping.segmentation.image import HEIGHT, UNSEEN, WIDTH
from twinloop.grasping.segmentation.network import Maps, SegmentNetwork, SegmentNetworkConfig
from twinloop.grasping.segmentation.targets import target
from twinloop.grasping.segmentation.training import CHECKPOINT, SegmentTrainingSettings, train
from twinloop.models.base import ModelInvalid
from twinloop_sim.grasping import segments
from typer.testing import CliRunner

SMALL = SegmentNetworkConfig(channels=(4, 4, 4, 4))
SETTINGS = SegmentTrainingSettings(epochs=2, batch=2)
EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)


def two_things() -> np.ndarray:
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    truth[60:120, 100:140] = 1
    truth[60:120, 140:200] = 2
    return truth


@pytest.fixture
def heaps(tmp_path: Path) -> data.Heaps:
    truth = two_things()
    heights = np.where(truth > 0, 300 + 100 * truth.astype(np.int16), 0).astype(np.int16)
    heights[:, :20] = UNSEEN
    for number in range(2):
        np.savez_compressed(
            tmp_path / f"train-{number:05d}.npz",
            heights=np.stack([heights, heights + np.int16(number)]),
            labels=np.stack([truth, truth]),
        )
    return data.load(tmp_path, "train")


def test_targets_lead_back_to_the_things() -> None:
    truth = two_things()
    wanted = target(truth)
    maps = Maps(
        torch.from_numpy(8 * wanted.foreground - 4)[None],
        torch.from_numpy(wanted.heat)[None],
        torch.from_numpy(wanted.offsets)[None],
    )
    labels, scores = group(maps, EVERYWHERE)
    accuracy = Accuracy()
    accuracy.add(truth, labels, scores, EVERYWHERE)
    found = accuracy.figures()
    assert found["ap"] == pytest.approx(1.0)
    assert found["recall"] == pytest.approx(1.0)
    assert (found["things"], found["told"], found["views"]) == (2, 2, 1)


def test_accuracy_counts_what_is_wrong() -> None:
    truth = two_things()
    merged = (truth > 0).astype(np.uint16)
    accuracy = Accuracy()
    accuracy.add(truth, merged, np.array([0.9]), EVERYWHERE)
    found = accuracy.figures()
    # The larger thing is 60% of what was told: right at overlaps of 0.5, 0.55 and 0.6 alone.
    assert found["recall50"] == pytest.approx(0.5)
    assert found["recall"] == pytest.approx(0.5 * 3 / 10)
    assert found["precision50"] == 1.0
    assert found["ap50"] == pytest.approx(51 / 101)
    # A wrong thing that is surer comes first, and halves the precision of what follows.
    wrong = np.zeros_like(merged)
    wrong[:20, :20] = 1
    wrong[truth == 2] = 2
    accuracy = Accuracy()
    accuracy.add(truth, wrong, np.array([0.9, 0.8]), EVERYWHERE)
    assert accuracy.figures()["ap50"] == pytest.approx(0.5 * 51 / 101)
    # Where nothing is counted, and of what hardly shows, nothing is wrong.
    accuracy = Accuracy()
    accuracy.add(truth, merged, np.array([0.9]), ~EVERYWHERE)
    speck = np.zeros_like(truth)
    speck[5:8, 5:8] = 1
    accuracy.add(speck, speck.astype(np.uint16), np.array([]), EVERYWHERE)
    assert accuracy.figures()["things"] == 0


def test_varied_views_stay_views(heaps: data.Heaps) -> None:
    for number in range(5):
        rng = np.random.default_rng(number)
        heights, labels = data.varied(heaps.heights[0], heaps.labels[0], rng)
        again, _ = data.varied(heaps.heights[0], heaps.labels[0], np.random.default_rng(number))
        assert np.array_equal(heights, again)
        assert (heights.shape, heights.dtype, labels.dtype) == ((240, 320), np.int16, np.uint8)
        assert set(np.unique(labels)) <= {0, 1, 2}
        assert (np.abs(heights[labels == 2].astype(int) - 500) <= 10).all()
        assert (heights == UNSEEN).any()


def weights_of(network: SegmentNetwork) -> torch.Tensor:
    return torch.cat([one.flatten().float() for one in network.state_dict().values()])


def test_training_that_was_broken_off_ends_with_the_same_weights(
    heaps: data.Heaps, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    said: list[int] = []
    whole = train(heaps, SETTINGS, 3, tmp_path / "whole", SMALL)

    class Broken(Exception):
        pass

    def say(step: int, steps: int, loss: float) -> None:
        assert steps == 4
        assert np.isfinite(loss)
        said.append(step)
        if step == 3 and said.count(3) == 1:
            raise Broken

    with pytest.raises(Broken):
        train(heaps, SETTINGS, 3, tmp_path / "parts", SMALL, say)
    parts = train(heaps, SETTINGS, 3, tmp_path / "parts", SMALL, say)
    assert said == [1, 2, 3, 3, 4]
    assert torch.equal(weights_of(whole), weights_of(parts))
    assert not torch.equal(
        weights_of(whole), weights_of(train(heaps, SETTINGS, 4, tmp_path / "4", SMALL))
    )
    with pytest.raises(ModelInvalid, match="name another folder"):
        train(heaps, SETTINGS, 4, tmp_path / "parts", SMALL)
    (tmp_path / "parts" / CHECKPOINT).write_bytes(b"spoilt")
    with pytest.raises(ModelInvalid, match=CHECKPOINT):
        train(heaps, SETTINGS, 3, tmp_path / "parts", SMALL)


def test_too_little_or_no_data_are_named(heaps: data.Heaps, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are 4 views"):
        train(heaps, SegmentTrainingSettings(batch=8), 0, tmp_path, SMALL)
    with pytest.raises(ValueError, match="holds no parts of split 'val'"):
        data.load(tmp_path, "val")


def test_a_part_of_the_twin_shows_heaps_and_their_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SCENES_IN_PART", 1)
    monkeypatch.setattr(segments, "_VIEWS", 2)
    part = segments.make_part("val", 3)
    again = segments.make_part("val", 3)
    assert all(np.array_equal(part[name], again[name]) for name in part)
    heights, labels = part["heights"], part["labels"]
    assert (heights.shape, heights.dtype) == ((2, HEIGHT, WIDTH), np.int16)
    assert (labels.shape, labels.dtype) == ((2, HEIGHT, WIDTH), np.uint8)
    for view, truth in zip(heights, labels, strict=True):
        seen = view != UNSEEN
        # Things are higher than what they lie on.
        assert np.median(view[seen & (truth > 0)]) > np.median(view[seen & (truth == 0)]) + 50


def test_commands_train_and_name_what_is_missing(heaps: data.Heaps, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    arguments = ["segment-train", str(tmp_path), "--out", str(tmp_path / "out"), "--epochs", "1"]
    missing = CliRunner().invoke(app, arguments)
    assert isinstance(missing.exception, CommandError)
    assert "holds no parts of split 'val'" in str(missing.exception)
    first = tmp_path / "train-00000.npz"
    for name in ("val-00000", "train-00002", "train-00003"):
        (tmp_path / f"{name}.npz").write_bytes(first.read_bytes())
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    network, manifest = weights.load(tmp_path / "out")
    assert manifest.trained["views"] == 8
    assert manifest.bytes < 2**20
    assert set(manifest.trained["validation"]) >= {"ap", "ap50", "recall", "precision50"}
    assert not network.training
