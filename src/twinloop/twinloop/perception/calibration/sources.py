# SPDX-License-Identifier: Apache-2.0
"""Shots from folders of pictures and from bags."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.bags.read import metadata, read_messages
from twinloop.contract import stamp_of
from twinloop.drivers.inputs import IMAGE_SUFFIXES, image_paths
from twinloop.perception.bag_images import find_topics, image_period_s
from twinloop.perception.calibration.collecting import Shot
from twinloop.perception.calibration.detection import as_grey
from twinloop.perception.calibration.views import CalibrationRefused
from twinloop.perception.image_files import decode_file
from twinloop.perception.images import to_array
from twinloop.perception.joint_history import JointHistory
from twinloop.perception.stereo_pairs import EYES, Pair, StereoPairs

Array = NDArray[np.float64]
JOINTS_FILE = "joints.csv"
_JOINTS_LATER_NS = 20_000_000
_JOINTS_WITHIN_NS = 1_000_000_000


def folder_shots(folder: Path, joints: Sequence[str] = ()) -> list[Shot]:
    """Read pairs of pictures: `left/` and `right/` in a folder hold files of equal names.

    Args:
        joints: names of the joints that matter; their positions stand in `joints.csv` in the
            folder, a line a picture: `picture,<joint>,...` and then such as `07,0.1,-0.2`, in rad.

    Raises:
        CalibrationRefused: pictures, partners or joint positions are missing, pictures cannot be
            read, or are of different sizes.
    """
    names = {eye: _named(folder / eye) for eye in EYES}
    for eye, other in (EYES, EYES[::-1]):
        alone = sorted(set(names[eye]) - set(names[other]))
        if alone:
            raise CalibrationRefused(
                f"{folder}: {len(names['left'])} left and {len(names['right'])} right pictures; "
                f"{other}/ has no {', '.join(alone[:3])}{' ...' if len(alone) > 3 else ''}. Each "
                f"pair needs equal names in left/ and right/"
            )
    positions = read_joints(folder / JOINTS_FILE, joints) if joints else {}
    absent = [name for name in names["left"] if joints and name not in positions]
    if absent:
        raise CalibrationRefused(
            f"{folder / JOINTS_FILE} has no joint positions of picture {', '.join(absent[:3])}"
        )
    shots = [
        Shot(name, tuple(_read(names[eye][name]) for eye in EYES), positions.get(name))
        for name in names["left"]
    ]
    _check_sizes(folder, shots)
    return shots


def read_joints(path: Path, joints: Sequence[str]) -> dict[str, Array]:
    """Return joint positions [J], rad, by picture.

    Raises:
        CalibrationRefused: there is no such file, a joint is missing, or a value is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except FileNotFoundError as error:
        raise CalibrationRefused(
            f"{path} is not there: expected a table 'picture,{','.join(joints)}' with the joint "
            "positions of each picture, in rad"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CalibrationRefused(f"{path} cannot be read: {error}") from error
    known = set(rows[0]) if rows else set()
    absent = [name for name in ("picture", *joints) if name not in known]
    if absent:
        raise CalibrationRefused(f"{path} has no column {', '.join(absent)}")
    result = {}
    for row in rows:
        try:
            values = np.array([float(row[name]) for name in joints])
        except (TypeError, ValueError) as error:
            raise CalibrationRefused(f"{path}, picture {row['picture']}: {error}") from error
        if not np.isfinite(values).all():
            raise CalibrationRefused(
                f"{path}, picture {row['picture']}: {values.tolist()}, expected finite radians"
            )
        result[Path(str(row["picture"])).stem] = values
    return result


def bag_shots(
    bag: Path,
    joints: Sequence[str] = (),
    every_s: float = 0.15,
    progress: Callable[[int], None] = lambda images: None,
) -> Iterator[Shot]:
    """Yield pairs of pictures of a bag, from stereo/left and stereo/right, raw or compressed.

    Args:
        joints: names of the joints that matter; pairs without their positions are left out.
        every_s: time between two pairs, s.
        progress: called with the images read so far.

    Raises:
        BagError: the bag is damaged, or lacks images or joint states.
        CalibrationRefused: an image cannot be read, or joint states lack a joint.
    """
    topics = find_topics(bag, metadata(bag), needs_infos=False, needs_joints=bool(joints))
    pairs = StereoPairs(image_period_s(bag, topics))
    history = JointHistory()
    wanted = [*topics.images.values(), *((topics.joints,) if joints else ())]
    last_ns: int | None = None
    images = 0
    waiting: list[Pair] = []
    for item in read_messages(bag, wanted):
        try:
            message = item.decode()
            if item.topic == topics.joints:
                history.feed(stamp_of(message), pick_joints(message, joints))
            else:
                images += 1
                progress(images)
                eye = topics.eye_of[item.topic]
                pair = pairs.feed(eye, stamp_of(message), to_array(message, "rgb8"))
                if pair and (last_ns is None or not 0 <= pair.stamp_ns - last_ns < every_s * 1e9):
                    last_ns = pair.stamp_ns
                    waiting.append(pair)
        except ValueError as error:
            raise CalibrationRefused(f"{bag}: {item.topic}: {error}") from error
        # Joint states of a picture's time may come after it.
        while waiting and (not joints or _has_come(waiting[0], waiting[-1], history)):
            yield from _shot(waiting.pop(0), history, joints)
    for pair in waiting:
        yield from _shot(pair, history, joints)


def _has_come(pair: Pair, newest: Pair, history: JointHistory) -> bool:
    """Tell whether joint states of a pair's time are there, or will not come any more."""
    is_there = history.at(pair.stamp_ns + _JOINTS_LATER_NS) is not None
    return is_there or newest.stamp_ns - pair.stamp_ns > _JOINTS_WITHIN_NS


def _shot(pair: Pair, history: JointHistory, joints: Sequence[str]) -> Iterator[Shot]:
    position = history.at(pair.stamp_ns) if joints else None
    if position is not None or not joints:
        yield Shot(f"{pair.stamp_ns * 1e-9:.3f}", (pair.left, pair.right), position)


def pick_joints(message: Any, joints: Sequence[str]) -> Array:
    """Return positions [J], rad, of joints out of a JointState message.

    Raises:
        ValueError: it lacks one of them.
    """
    places = {name: index for index, name in enumerate(message.name)}
    absent = [
        name for name in joints if places.get(name, len(message.position)) >= len(message.position)
    ]
    if absent:
        raise ValueError(f"joint states have no position of {', '.join(absent)}")
    return np.array([message.position[places[name]] for name in joints], dtype=np.float64)


def _named(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise CalibrationRefused(f"{folder} is not there: expected a folder of pictures")
    found = {path.stem: path for path in image_paths(folder)}
    if not found:
        raise CalibrationRefused(f"{folder} holds no pictures: {', '.join(IMAGE_SUFFIXES)}")
    return found


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        pixels = decode_file(np.fromfile(path, np.uint8))
        return as_grey(pixels[..., ::-1] if pixels.ndim == 3 else pixels)  # files have blue first
    except (OSError, ValueError) as error:
        raise CalibrationRefused(f"{path}: {error}") from error


def _check_sizes(folder: Path, shots: Sequence[Shot]) -> None:
    sizes = {
        f"{eye}/{shot.name}": image.shape[1::-1]
        for shot in shots
        for eye, image in zip(EYES, shot.images, strict=True)
    }
    first, expected = next(iter(sizes.items()))
    for name, size in sizes.items():
        if size != expected:
            raise CalibrationRefused(
                f"{folder}: {name} is {size[0]}x{size[1]} pixels, {first} {expected[0]}x"
                f"{expected[1]}: take all pictures with the same settings of both cameras"
            )
