# SPDX-License-Identifier: Apache-2.0
"""The network on disk: a folder with `grasping.json` and its weights; see `network_file`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from twinloop.grasping.network import NetworkConfig, QualityNetwork
from twinloop.models import network_file

MANIFEST = "grasping.json"


class Manifest(network_file.NetworkManifest):
    """The content of `grasping.json`.

    Attributes:
        network: its architecture.
        calibration: slope and intercept from log-odds to the probability that a grasp holds.
    """

    format: Literal["twinloop-grasping/1"] = "twinloop-grasping/1"
    network: NetworkConfig
    calibration: tuple[float, float] = (1.0, 0.0)


def save(
    folder: Path,
    network: QualityNetwork,
    trained: dict[str, Any],
    calibration: tuple[float, float] = (1.0, 0.0),
) -> Manifest:
    """Write both files into a folder; raises ModelInvalid as `network_file.save` does."""
    about = {"network": network.config, "trained": trained, "calibration": calibration}
    return network_file.save(folder / MANIFEST, Manifest, network, about)


def load(folder: Path | str) -> tuple[QualityNetwork, Manifest]:
    """Read both files; raises ModelInvalid as `network_file.load` does."""
    return network_file.load(
        Path(folder) / MANIFEST, Manifest, lambda manifest: QualityNetwork(manifest.network)
    )
