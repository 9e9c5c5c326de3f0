# SPDX-License-Identifier: Apache-2.0
"""The files for rviz are valid and ask for what a viewer can get."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from twinloop.paths import share
from twinloop.robots.description import cell_urdf, hand_urdf
from twinloop.robots.link_tree import LinkTree

FILES = {"baoding": hand_urdf, "cell": cell_urdf}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load(share("rviz", f"{name}.rviz").read_text())["Visualization Manager"]


@pytest.mark.parametrize("name", FILES)
def test_fixed_frame_is_a_link_of_what_is_described(name: str) -> None:
    manager = load(name)
    tree = LinkTree(FILES[name]())
    assert manager["Global Options"]["Fixed Frame"] in tree.names
    assert manager["Views"]["Current"]["Target Frame"] in tree.names


@pytest.mark.parametrize("name", FILES)
def test_displays_are_named_apart_and_of_rviz_own_kinds(name: str) -> None:
    displays = load(name)["Displays"]
    names = [one["Name"] for one in displays]
    assert len(set(names)) == len(names)
    assert all(one["Class"].startswith("rviz_default_plugins/") for one in displays)
    assert all(one["Enabled"] == one["Value"] for one in displays)
