# SPDX-License-Identifier: Apache-2.0
"""How the cell looks: light, colours, patterns and what lies about; drawn from disjoint families.

What is trained on appearances of one family is tuned on another and tested on a third: their hues,
patterns and directions of light have nothing in common.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twinloop_sim.cameras.patterns import PATTERNS

Color = tuple[float, float, float]
Family = Literal["train", "tune", "test"]
FAMILIES: tuple[Family, ...] = get_args(Family)
MOST_CLUTTER = 6


@dataclass(frozen=True)
class Surface:
    """How something is painted.

    Attributes:
        color, second: RGB, 0 to 1; the pattern goes from one to the other.
        pattern: a key of `patterns.PATTERNS`.
        gloss: of the highlights, 0 to 1.
        seed: of the pattern.

    Raises:
        ValueError: an unknown pattern, or a colour or gloss outside of 0 to 1.
    """

    color: Color
    second: Color = (0.5, 0.5, 0.5)
    pattern: str = "plain"
    gloss: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern is {self.pattern!r}, expected one of {sorted(PATTERNS)}")
        if not all(0.0 <= part <= 1.0 for part in (*self.color, *self.second, self.gloss)):
            raise ValueError(f"{self}: colours and gloss are 0 to 1")

    def paint(self, places: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the texels [..., 3] of places [..., 3]."""
        mix = PATTERNS[self.pattern](places, np.random.default_rng(self.seed))[..., None]
        painted = (1.0 - mix) * np.array(self.color) + mix * np.array(self.second)
        return np.round(255.0 * painted).astype(np.uint8)


@dataclass(frozen=True)
class Light:
    """A far lamp and the light from all sides.

    Attributes:
        azimuth_deg, elevation_deg: where the lamp is, seen from the hand; azimuth from world +x
            counter-clockwise.
        color: RGB, 0 to 1.
        strength, ambient: of the lamp, and from all sides; 0 to 1.
    """

    azimuth_deg: float = 60.0
    elevation_deg: float = 70.0
    color: Color = (1.0, 0.98, 0.95)
    strength: float = 0.5
    ambient: float = 0.45

    def direction(self) -> NDArray[np.float64]:
        """Towards the lamp, a unit vector [3], world."""
        azimuth, elevation = np.radians([self.azimuth_deg, self.elevation_deg])
        flat = np.cos(elevation)
        return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])


@dataclass(frozen=True)
class Block:
    """A box that lies on the floor.

    Attributes:
        place: on the floor [2], m, world.
        half: half edges [3], m.
        turn_deg: about the vertical.
    """

    place: tuple[float, float]
    half: tuple[float, float, float]
    turn_deg: float
    color: Color


@dataclass(frozen=True)
class Appearance:
    """How the cell looks; the defaults are the nominal one.

    Attributes:
        balls: of ball 0 and 1.
        hand: of the URDF's materials by name; what is not named keeps its colour there.
        floor: under the hand.
        light: one lamp.
        clutter: what lies on the floor, `MOST_CLUTTER` at most.
    """

    balls: tuple[Surface, Surface] = (
        Surface((0.75, 0.08, 0.10), gloss=0.6),
        Surface((0.05, 0.38, 0.62), gloss=0.6),
    )
    hand: dict[str, Surface] = field(default_factory=dict)
    floor: Surface = Surface((0.70, 0.73, 0.76))
    light: Light = Light()
    clutter: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if len(self.clutter) > MOST_CLUTTER:
            raise ValueError(f"{len(self.clutter)} pieces of clutter, at most {MOST_CLUTTER}")

    def surface(self, material: str, colors: dict[str, Color]) -> Surface:
        """Return how a material of the hand looks, that has one of these colours in the URDF."""
        return self.hand.get(material) or Surface(colors.get(material, (0.5, 0.5, 0.5)))


@dataclass(frozen=True)
class _Range:
    """What a family is drawn from; `sectors` are twelfths of the circle of hues."""

    sectors: tuple[int, ...]
    ball_patterns: tuple[str, ...]
    other_patterns: tuple[str, ...]
    azimuth_deg: tuple[float, float]


_RANGES: dict[Family, _Range] = {
    "train": _Range(
        (0, 1, 4, 5, 8, 9), ("plain", "bands", "speckles"), ("plain", "checks"), (0.0, 180.0)
    ),
    "tune": _Range((2, 6, 10), ("halves", "checks"), ("bands",), (180.0, 270.0)),
    "test": _Range((3, 7, 11), ("swirl", "rings"), ("cloud", "planks"), (270.0, 360.0)),
}
_SECTOR = 1.0 / 12.0
_LEAST_HUE_APART = 2.0 * _SECTOR


def draw_appearance(seed: int, family: Family) -> Appearance:
    """Return the appearance of a seed.

    Balls are of saturated, clearly different hues; hand, floor and clutter are duller.

    Raises:
        ValueError: an unknown family, or a negative seed.
    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}, expected one of {', '.join(FAMILIES)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected at least 0")
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    span = _RANGES[family]
    hues = _hue(rng, span), _hue(rng, span)
    while abs((hues[0] - hues[1] + 0.5) % 1.0 - 0.5) < _LEAST_HUE_APART:
        hues = hues[0], _hue(rng, span)
    first, second = (_ball(rng, span, hue) for hue in hues)
    skin = _dull(rng, span)
    hand = {
        "skin": Surface(
            skin,
            _near(rng, skin),
            str(rng.choice(span.other_patterns)),
            0.2 * rng.random(),
            _seed(rng),
        ),
        "pad": Surface(_near(rng, skin)),
        "shell": Surface(_dull(rng, span)),
        "metal": Surface(_dull(rng, span)),
    }
    floor = Surface(
        _dull(rng, span),
        _dull(rng, span),
        str(rng.choice(span.other_patterns)),
        0.2 * rng.random(),
        _seed(rng),
    )
    light = Light(
        azimuth_deg=rng.uniform(*span.azimuth_deg),
        elevation_deg=rng.uniform(35.0, 80.0),
        color=_rgb(rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.15), 1.0),
        strength=rng.uniform(0.35, 0.65),
        ambient=rng.uniform(0.25, 0.5),
    )
    clutter = tuple(_block(rng, span) for _ in range(rng.integers(0, MOST_CLUTTER + 1)))
    return Appearance((first, second), hand, floor, light, clutter)


def _ball(rng: np.random.Generator, span: _Range, hue: float) -> Surface:
    color = _rgb(hue, rng.uniform(0.65, 1.0), rng.uniform(0.45, 0.95))
    # The second colour is the first one, darker or paler: a ball keeps its hue.
    second = _rgb(hue, rng.uniform(0.3, 1.0), rng.uniform(0.2, 1.0))
    pattern = str(rng.choice(span.ball_patterns))
    return Surface(color, second, pattern, rng.uniform(0.1, 0.9), _seed(rng))


def _block(rng: np.random.Generator, span: _Range) -> Block:
    x, y = rng.uniform((-0.35, -0.25), (0.35, 0.45))
    a, b, c = rng.uniform(0.01, 0.05, 3)
    return Block((x, y), (a, b, c), rng.uniform(0.0, 180.0), _dull(rng, span))


def _dull(rng: np.random.Generator, span: _Range) -> Color:
    return _rgb(_hue(rng, span), rng.uniform(0.0, 0.4), rng.uniform(0.15, 0.9))


def _near(rng: np.random.Generator, color: Color) -> Color:
    r, g, b = np.clip(np.array(color) * rng.uniform(0.75, 1.2), 0.0, 1.0).tolist()
    return r, g, b


def _hue(rng: np.random.Generator, span: _Range) -> float:
    return float((rng.choice(span.sectors) + rng.random()) * _SECTOR)


def _rgb(hue: float, saturation: float, value: float) -> Color:
    return colorsys.hsv_to_rgb(hue, saturation, value)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
