# SPDX-License-Identifier: Apache-2.0
"""Fault row 29: weights that are NaN, missing or truncated, announced to a planner at work."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from episodes import Episodes, Sensing
from rows import Row
from twin_station import Station
from twinloop.learning.model_file import Candidate, write_model
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.nodes import qos

from twinloop import contract
from twinloop_interfaces.msg import ModelAnnouncement

CONTRACT = contract.load("baoding")


def untrained(folder: Path, seed: int) -> Path:
    """Write a model that predicts next to nothing; what it plans does not matter here."""
    command = CONTRACT.slices["command"]
    config = EnsembleConfig(
        observation_size=CONTRACT.observation_size,
        action_size=CONTRACT.action_size,
        members=2,
        hidden=(16,),
        known=(command.start, command.stop),
    )
    folder.mkdir()
    write_model(folder, Candidate(Ensemble(config, seed), CONTRACT, status="seed"))
    return folder


def fill_with_nan(weights: Path) -> None:
    """Overwrite the last values, with a manifest that agrees."""
    data = weights.read_bytes()[:-400] + b"\xff" * 400
    weights.write_bytes(data)
    manifest = weights.with_name("model.json")
    content = json.loads(manifest.read_text())
    content["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    manifest.write_text(json.dumps(content))


BROKEN: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "truncated": lambda weights: os.truncate(weights, weights.stat().st_size // 2),
    "nan": fill_with_nan,
}


@pytest.mark.fault(29, "the planner")
def test_row_29_broken_weights_are_refused_and_the_running_model_stays(
    row: Row, tmp_path: Path
) -> None:
    running = untrained(tmp_path / "v0001", 0)
    # In slow motion, so that a busy machine's delays end no episode.
    station = Station(rtf=0.25, command_timeout_s=5.0, lease_s=5.0)
    try:
        with tempfile.TemporaryFile("w+") as log:
            sensing = Sensing(station)
            announced = station.node.create_publisher(ModelAnnouncement, "model", qos.latched(10))
            planner = station.start(
                "twinloop.nodes.planner",
                stderr=log,
                model=running,
                planner="knots",
                rtf=0.25,
                nice=0,
            )

            def announce(path: Path) -> None:
                message = ModelAnnouncement(version=path.name, path=str(path))
                message.status = ModelAnnouncement.PROMOTED
                announced.publish(message)

            def refused() -> int:
                log.flush()
                return os.pread(log.fileno(), 10**6, 0).decode().count("model refused, v0001 stays")

            try:
                Episodes(station, sensing).plan()
                for count, (name, spoil) in enumerate(BROKEN.items(), start=1):
                    path = untrained(tmp_path / name, count)
                    spoil(path / "weights.safetensors")
                    announce(path)
                    station.spin_until(lambda count=count: refused() == count)
                steps = len(sensing.stats)
                station.spin_until(lambda: len(sensing.stats) >= steps + 3)
                others = [s for _, s in sensing.stats if s.model_version != "v0001"]
                assert not any(stats.stop_reason for _, stats in sensing.stats)
                announce(untrained(tmp_path / "v0002", 9))
                station.spin_until(lambda: sensing.stats[-1][1].model_version == "v0002")
            finally:
                planner.kill()
                planner.wait()
    finally:
        station.close()
    row.measured("refused, of 3", len(BROKEN), at_least=3)
    row.measured("steps planned with another model", len(others), at_most=0)
