# SPDX-License-Identifier: Apache-2.0
"""Standard messages built beside the wheels are the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ament_index_python import get_package_share_path
from rosbags.typesys import Stores, get_typestore

MESSAGES = sorted((Path(__file__).resolve().parents[2] / "wheels").glob("*/msg/*.msg"))


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_hash_is_that_of_the_distribution(path: Path) -> None:
    package = path.parent.parent.name
    about = json.loads((get_package_share_path(package) / "msg" / f"{path.stem}.json").read_text())
    name = f"{package}/msg/{path.stem}"
    (built,) = (one["hash_string"] for one in about["type_hashes"] if one["type_name"] == name)
    store = get_typestore(Stores.ROS2_JAZZY)
    if name not in store.fielddefs:
        pytest.skip(f"rosbags does not know {name}")
    assert built == store.hash_rihs01(name)
