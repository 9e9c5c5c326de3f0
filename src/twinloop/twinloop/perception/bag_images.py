# SPDX-License-Identifier: Apache-2.0
"""Where the images of a stereo camera are in a bag, and what goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinloop.bags.errors import BagError
from twinloop.bags.metadata import BagInformation
from twinloop.bags.read import metadata, read_messages
from twinloop.contract import stamp_of
from twinloop.perception.stereo_pairs import EYES

_IMAGES = ("image_raw/compressed", "image_raw")  # of a camera, in the order of preference
_PERIODS_S = (1e-3, 1.0)  # what a camera's period may be


@dataclass(frozen=True)
class BagTopics:
    """The topics of a bag that a tracker needs, and those that may be there."""

    images: dict[str, str]
    infos: dict[str, str]
    joints: str
    balls: str
    status: str

    @property
    def eye_of(self) -> dict[str, str]:
        return {topic: eye for eye, topic in (*self.images.items(), *self.infos.items())}


def find_topics(
    bag: Path, information: BagInformation, needs_infos: bool = True, needs_joints: bool = True
) -> BagTopics:
    """Return where images, calibration and joints are in a bag.

    Raises:
        BagError: something is missing; names it.
    """
    names = {topic.name for topic in information.topics if topic.message_count}
    suffixes = [f"/stereo/left/{kind}" for kind in _IMAGES]
    found = [(name, s) for s in suffixes for name in sorted(names) if name.endswith(s)]
    if not found:
        raise BagError(
            bag,
            "holds no images of a stereo camera: expected stereo/left/image_raw/compressed; "
            "record them with images:=compressed",
        )
    name, suffix = found[0]
    cell = name.removesuffix(suffix)
    if len({each.removesuffix(s) for each, s in found}) > 1:
        raise BagError(bag, f"holds images of several cells: {', '.join(n for n, _ in found)}")
    kind = suffix.removeprefix("/stereo/left/")
    images = {eye: f"{cell}/stereo/{eye}/{kind}" for eye in EYES}
    infos = {eye: f"{cell}/stereo/{eye}/camera_info" for eye in EYES} if needs_infos else {}
    joints = f"{cell}/joint_states"
    needed = {*images.values(), *infos.values(), *((joints,) if needs_joints else ())}
    missing = sorted(needed - names)
    if missing:
        raise BagError(bag, f"holds no messages on {', '.join(missing)}, which are needed")
    balls = f"{cell}/balls"
    return BagTopics(images, infos, joints, balls, f"{cell}/episode_status")


def count_images(bag: Path, needs_joints: bool = True) -> int:
    """Return how many images of both eyes a bag holds; raises BagError as `find_topics` does."""
    information = metadata(bag)
    topics = find_topics(bag, information, needs_infos=False, needs_joints=needs_joints)
    wanted = set(topics.images.values())
    return sum(topic.message_count for topic in information.topics if topic.name in wanted)


def image_period_s(bag: Path, topics: BagTopics) -> float:
    """Return the usual time between two images of an eye, their median [s].

    Raises:
        BagError: the bag is damaged, or holds something else where an image should be.
    """
    stamps_ns = []
    for message in read_messages(bag, [topics.images["left"]]):
        try:
            stamps_ns.append(stamp_of(message.decode()))
        except ValueError as error:
            raise BagError(bag, f"{message.topic}: {error}") from error
    steps_s = 1e-9 * np.diff(np.array(stamps_ns, dtype=np.int64)).astype(np.float64)
    forward_s = steps_s[steps_s > 0.0]
    low, high = _PERIODS_S
    return float(np.clip(np.median(forward_s), low, high)) if len(forward_s) else high
