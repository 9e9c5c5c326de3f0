# SPDX-License-Identifier: Apache-2.0
"""The ball tracker's training data and training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from twinloop.cli.main import main
from twinloop.perception.ball_tracker import weights
from twinloop.perception.ball_tracker.augment import augment
from twinloop.perception.ball_tracker.data import STORED, load
from twinloop.perception.ball_tracker.network import NetworkConfig, read
from twinloop.perception.ball_tracker.training import TrainingSettings, loss, targets, train
from twinloop_sim import tracker_scenes
from twinloop_sim.cameras import open_eyes

PAIRS = 6
TINY = NetworkConfig(widths=(4, 8, 8), depths=(1, 1))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of training data from short episodes."""
    folder = tmp_path_factory.mktemp("data") / "drawn"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracker_scenes, "_STEPS", 2)
        patch.setattr(tracker_scenes, "_BATCH", 2)
        eyes = open_eyes("pybullet")
        tracker_scenes.generate(folder, eyes, PAIRS, seed=5)
        eyes.close()
    return folder


def test_labels_lie_where_the_balls_are_said_to_be(drawn: Path) -> None:
    samples = load([drawn])
    assert samples.images.shape == (PAIRS, 2, STORED[1], STORED[0], 3)
    clear = 0
    for pair in range(PAIRS):
        for eye in range(2):
            for ball in range(2):
                x, y, radius = samples.balls[pair, eye, ball]
                rows, columns = np.nonzero(samples.labels[pair, eye] == 2 + ball)
                if len(rows) < 0.97 * np.pi * radius**2:
                    continue
                clear += 1
                assert columns.mean() == pytest.approx(x, abs=0.6)
                assert rows.mean() == pytest.approx(y, abs=0.6)
    assert clear >= 4


def test_a_used_folder_is_refused(drawn: Path) -> None:
    with pytest.raises(FileExistsError, match="is not empty"):
        tracker_scenes.generate(drawn, open_eyes("pybullet"), 1, seed=0)


def test_targets_point_from_each_cell_to_its_ball() -> None:
    labels = torch.zeros(1, 16, 24, dtype=torch.uint8)
    labels[0, 4:8, 8:12] = 2
    labels[0, 8:12, 8:16] = 1
    balls = torch.tensor([[[14.0, 3.0, 17.0], [0.0, 0.0, -1.0]]])
    wanted = targets(labels, balls)
    assert wanted.share[0, 0, 1, 2] == 1.0
    assert wanted.share.sum() == 1.0
    # The cell of pixels 8 to 11 and 4 to 7 is centred at (9.5, 5.5).
    torch.testing.assert_close(wanted.offset[0, 0, :, 1, 2], torch.tensor([4.5, -2.5]))
    torch.testing.assert_close(wanted.classes.sum(dim=1), torch.ones(1, 8, 12))


def test_the_loss_is_least_where_votes_are_right() -> None:
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    labels[:, 8:24, 8:24] = 2
    balls = torch.tensor([[[15.5, 15.5, 9.0], [0.0, 0.0, 1.0]]] * 2)
    wanted = targets(labels, balls)

    def parts(shift: float) -> dict[str, torch.Tensor]:
        raw = torch.zeros(2, 6, 8, 8)
        raw[:, :2] = wanted.offset[:, 0] / 16.0
        raw[0, 0] += shift / 16.0
        raw[:, 2] = np.log(9.0 / 17.0)
        return loss(read(torch.zeros(2, 3, 16, 16), raw), wanted)

    right, wrong = parts(0.0), parts(1.0)
    assert float(right["disparities"]) == pytest.approx(0.0, abs=1e-5)
    assert float(wrong["disparities"]) == pytest.approx(1.0, abs=1e-3)
    assert wrong["votes"] > right["votes"]
    assert wrong["centres"] > right["centres"]


def test_changes_keep_both_eyes_of_a_pair_alike() -> None:
    windows = torch.full((4, 3, 32, 32), 100, dtype=torch.uint8)
    labels = torch.zeros(4, 32, 32, dtype=torch.uint8)
    labels[:, :16] = 2
    changed = augment(windows, labels, torch.Generator().manual_seed(3)).float()
    means = changed.unflatten(2, (2, 16)).mean(dim=(3, 4))  # [4, 3, 2 halves]
    torch.testing.assert_close(means[0::2], means[1::2], atol=2.0, rtol=0.0)
    assert (means[0] - means[2]).abs().max() > 5.0
    again = augment(windows, labels, torch.Generator().manual_seed(3)).float()
    torch.testing.assert_close(again, changed)


def test_equal_seeds_give_equal_networks(drawn: Path) -> None:
    samples = load([drawn])
    settings = TrainingSettings(windows=16, batch=8)
    torch.set_num_threads(1)
    first, second = (train(samples, settings, 1, TINY).state_dict() for _ in range(2))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0.0, atol=0.0)
    other = train(samples, settings, 2, TINY).state_dict()
    assert not torch.equal(first["votes.weight"], other["votes.weight"])


def test_the_command_trains_a_network_that_can_be_loaded(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "network"
    words = ["tracker", "train", str(drawn), "--out", str(out), "--windows", "100"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    assert weights.load(out).config == NetworkConfig()
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_no_batch_is_no_training() -> None:
    with pytest.raises(ValueError, match="expected at least one batch"):
        TrainingSettings(windows=10, batch=32)
