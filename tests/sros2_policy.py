# SPDX-License-Identifier: Apache-2.0
"""Reads config/sros2 as `ros2 security` does: who may say, hear and ask what."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

FOLDER = Path(__file__).resolve().parents[1] / "config" / "sros2"
_INCLUDE = "{http://www.w3.org/2001/XInclude}include"
WAYS = {
    "topics": ("publish", "subscribe"),
    "services": ("reply", "request"),
    "actions": ("execute", "call"),
}


@dataclass
class Permissions:
    """Full names, by what may be done: `publish`, `subscribe`, `reply`, `request`, …"""

    allowed: dict[str, set[str]] = field(default_factory=dict)

    def of(self, way: str) -> set[str]:
        return self.allowed.get(way, set())


def read_policy(path: Path = FOLDER / "policy.xml") -> dict[tuple[str, str], Permissions]:
    """Return the permissions of each enclave and node, such as (`/twinloop/planners`, `/planner`).

    Raises:
        AssertionError: something that is no policy.
    """
    found = {}
    for enclave in ElementTree.parse(path).getroot().findall("enclaves/enclave"):
        for profile in enclave.findall("profiles/profile"):
            name = f"{profile.attrib['ns'].rstrip('/')}/{profile.attrib['node']}"
            permissions = Permissions()
            for group in _groups(profile, path.parent):
                (way, word) = next(iter(group.attrib.items()))
                assert word == "ALLOW", f"{name}: {way} is {word}"
                assert way in WAYS[group.tag], f"{name}: <{group.tag} {way}>"
                names = permissions.allowed.setdefault(way, set())
                names |= {_full(each.text or "", profile.attrib["ns"], name) for each in group}
            assert (enclave.attrib["path"], name) not in found, f"{name} is there twice"
            found[enclave.attrib["path"], name] = permissions
    return found


def _groups(profile: ElementTree.Element, folder: Path) -> list[ElementTree.Element]:
    groups = []
    for element in profile:
        if element.tag == _INCLUDE:
            assert element.attrib["xpointer"] == "xpointer(/profile/*)"
            groups += list(ElementTree.parse(folder / element.attrib["href"]).getroot())
        else:
            groups.append(element)
    return groups


def _full(name: str, namespace: str, node: str) -> str:
    assert name == name.strip() != "", repr(name)
    if name.startswith("/"):
        return name
    if name.startswith("~/"):
        return node + name[1:]
    return f"{namespace.rstrip('/')}/{name}"
