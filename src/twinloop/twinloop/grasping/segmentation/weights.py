# SPDX-License-Identifier: Apache-2.0
"""The network on disk: a folder with `segmentation.json` and its weights; see `network_file`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from twinloop.grasping.segmentation.network import SegmentNetwork, SegmentNetworkConfig
from twinloop.models import network_file

MANIFEST = "segmentation.json"


class Manifest(network_file.NetworkManifest):
    """The content of `segmentation.json`.

    Attributes:
        network: its architecture.
    """

    format: Literal["twinloop-segmentation/1"] = "twinloop-segmentation/1"
    network: SegmentNetworkConfig


def save(folder: Path, network: SegmentNetwork, trained: dict[str, Any]) -> Manifest:
    """Write both files into a folder; raises ModelInvalid as `network_file.save` does."""
    about = {"network": network.config, "trained": trained}
    return network_file.save(folder / MANIFEST, Manifest, network, about)


def load(folder: Path | str) -> tuple[SegmentNetwork, Manifest]:
    """Read both files; raises ModelInvalid as `network_file.load` does."""
    return network_file.load(
        Path(folder) / MANIFEST, Manifest, lambda manifest: SegmentNetwork(manifest.network)
    )
