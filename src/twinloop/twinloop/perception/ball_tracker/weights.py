# SPDX-License-Identifier: Apache-2.0
"""The network on disk: a folder with `tracker.json` and its weights; see `network_file`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from twinloop.models import network_file
from twinloop.perception.ball_tracker.network import NetworkConfig, VoteNetwork

MANIFEST = "tracker.json"


class Manifest(network_file.NetworkManifest):
    """The content of `tracker.json`.

    Attributes:
        network: its architecture.
    """

    format: Literal["twinloop-ball-tracker/1"] = "twinloop-ball-tracker/1"
    network: NetworkConfig


def save(folder: Path, network: VoteNetwork, trained: dict[str, Any]) -> Manifest:
    """Write both files into a folder; raises ModelInvalid as `network_file.save` does."""
    about = {"network": network.config, "trained": trained}
    return network_file.save(folder / MANIFEST, Manifest, network, about)


def load(folder: Path | str) -> VoteNetwork:
    """Read both files; raises ModelInvalid as `network_file.load` does."""
    network, _ = network_file.load(
        Path(folder) / MANIFEST, Manifest, lambda manifest: VoteNetwork(manifest.network)
    )
    return network
