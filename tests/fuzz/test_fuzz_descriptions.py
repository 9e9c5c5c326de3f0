# SPDX-License-Identifier: Apache-2.0
"""Bad descriptions of robots and launch files: refused by element, or by file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import TEXTS
from tally import TALLY, examples
from texts import spoiled_bytes
from twinloop.launching import LaunchError, load_launch_file, parse_assignments, read_arguments
from twinloop.motion.semantics import read_semantics, srdf
from twinloop.robots.description import cell_urdf, hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import Chain, capsules, fixed_transform, joints_between
from twinloop.robots.shapes import visible_shapes

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = ["nan", "1e999", "", "1 2", "1 2 3 4", "x", "-1", "0 0 0", "1e308 1e308 1e308", "0x10"]
TAG = re.compile(r"<[^<>]*>")
ATTRIBUTE = re.compile(r'\s[\w:-]+="[^"]*"')


@st.composite
def spoiled_xml(draw: Any, sound: str) -> str:
    """XML with tags or attributes gone, doubled, of another kind, or with another value."""
    if draw(st.integers(0, 5)) == 0:
        return draw(spoiled_bytes(sound.encode())).decode("utf-8", "replace")
    for _ in range(draw(st.integers(1, 3))):
        tags = list(TAG.finditer(sound))
        tag = tags[draw(st.integers(0, len(tags) - 1))]
        text, way = tag[0], draw(st.integers(0, 5))
        attributes = ATTRIBUTE.findall(text)
        if way == 0:
            changed = ""
        elif way == 1:
            changed = text + text
        elif way == 2 or not attributes:
            changed = text.replace("<", "<odd_", 1)
        else:
            attribute = draw(st.sampled_from(attributes))
            key = attribute.partition("=")[0]
            value = draw(st.sampled_from(NUMBERS) | VALUES)
            changed = text.replace(attribute, "" if way == 3 else f'{key}="{value}"')
        sound = sound[: tag.start()] + changed + sound[tag.end() :]
        if not TAG.search(sound):
            break
    return sound


VALUES = TEXTS.filter(lambda text: len(text) < 1000).map(
    lambda text: re.sub(r'[<>&"]', "_", text)
) | st.sampled_from(
    [
        *("rh_palm", "rh_forearm", "world", "revolute", "floating", "$(var x", "$(env NOTHING)"),
        *("$(find-pkg-share none)", "$(eval 1/0)", "$(dirname)", "$(x)", "$(eval '9**9**9')"),
    ]
)


def _urdf(text: str) -> None:
    Chain(text, HAND24.joint_names, ("rh_palm", "rh_thdistal"))
    capsules(text)
    visible_shapes(text)


@pytest.mark.parametrize("way", ["element", "tree"])
def test_bad_urdfs_are_refused(way: str) -> None:
    sound = hand_urdf()
    if way == "tree":  # only what hangs on what, where a wrong word makes a ring or a second tree
        joints = re.findall(r"<joint.*?</joint>", sound, re.S)
        sound = f"<robot>{''.join(joints)}</robot>"
        names = re.findall(r'link="(\w+)"', sound)
    _urdf(hand_urdf())

    @examples(300)
    @given(data=st.data())
    def try_out(data: st.DataObject) -> None:
        text = sound
        if way == "tree":
            for _ in range(data.draw(st.integers(1, 3))):
                old, new = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
                text = text.replace(f'link="{old}"', f'link="{new}"', data.draw(st.integers(1, 2)))
        else:
            text = data.draw(spoiled_xml(sound))
        TALLY.read("URDF", lambda: _urdf(text), (ValueError,))

    try_out()


@examples(100)
@given(parent=TEXTS, child=TEXTS)
def test_links_that_there_are_not_are_named(parent: str, child: str) -> None:
    urdf = cell_urdf()
    for read in (fixed_transform, joints_between):
        TALLY.read("link of a URDF", lambda: read(urdf, parent, child), (ValueError,), ("link",))  # noqa: B023


@examples(300)
@given(text=spoiled_xml(srdf()))
def test_bad_srdfs_are_refused(text: str) -> None:
    TALLY.read("SRDF", lambda: read_semantics(text), (ValueError,))


@pytest.mark.parametrize("name", ["baoding", "gazebo"])
def test_bad_launch_files_are_refused_by_file(name: str, tmp_path: Path) -> None:
    sound = (ROOT / "launch" / f"{name}.launch.xml").read_text()
    path = tmp_path / f"{name}.launch.xml"

    @examples(200)
    @given(text=spoiled_xml(sound))
    def try_out(text: str) -> None:
        path.write_bytes(text.encode("utf-8", "replace"))

        def read() -> None:
            read_arguments(path)
            load_launch_file(path, {}, {"PATH": "/usr/bin"})

        TALLY.read("launch file", read, (LaunchError,))

    try_out()


@examples(200)
@given(words=st.lists(TEXTS | st.sampled_from(["a:=b", ":=", "a:", "a=b"]), min_size=1, max_size=4))
def test_bad_launch_arguments_are_refused(words: list[str]) -> None:
    path = ROOT / "launch" / "baoding.launch.xml"
    TALLY.read(
        "launch argument",
        lambda: load_launch_file(path, parse_assignments(words), {"PATH": "/usr/bin"}),
        (LaunchError,),
    )
