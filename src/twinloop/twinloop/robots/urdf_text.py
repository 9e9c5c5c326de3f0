# SPDX-License-Identifier: Apache-2.0
"""Reading the XML of robot descriptions, with errors that name element and attribute."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from twinloop.robots.rotations import matrix_from_rpy

Array = NDArray[np.float64]


def parse(text: str, what: str = "URDF") -> Element:
    """Return the root element.

    Raises:
        ValueError: the text is not XML.
    """
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ValueError(f"the {what} is not XML: {error}") from error


def attribute(element: Element, name: str) -> str:
    """Return an attribute.

    Raises:
        ValueError: the element has none of that name.
    """
    try:
        return element.attrib[name]
    except KeyError:
        raise ValueError(f"{_named(element)} has no attribute {name!r}") from None


def child(element: Element, tag: str) -> Element:
    """Return the first element of a tag inside another.

    Raises:
        ValueError: there is none.
    """
    found = element.find(tag)
    if found is None:
        raise ValueError(f"{_named(element)} has no <{tag}>")
    return found


def number(element: Element, name: str, default: str | None = None) -> float:
    """Return an attribute as a finite number.

    Raises:
        ValueError: it is missing without a default, or not a finite number.
    """
    return float(numbers(element, name, 1, default)[0])


def numbers(element: Element, name: str, count: int, default: str | None = None) -> Array:
    """Return an attribute as so many finite numbers [count].

    Raises:
        ValueError: it is missing without a default, or not so many finite numbers.
    """
    text = element.get(name, default) if default is not None else attribute(element, name)
    assert text is not None
    try:
        values = [float(part) for part in text.split()]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise ValueError(
            f"{_named(element)}: {name} is {text!r:.60}, expected {count} finite numbers"
        )
    return np.array(values)


def origin(element: Element) -> tuple[Array, Array]:
    """Return place [3], m, and turn [3, 3] of the `<origin>` in an element; none where it is left
    out.

    Raises:
        ValueError: it does not hold finite numbers.
    """
    found = element.find("origin")
    if found is None:
        return np.zeros(3), np.eye(3)
    return numbers(found, "xyz", 3, "0 0 0"), matrix_from_rpy(numbers(found, "rpy", 3, "0 0 0"))


def _named(element: Element) -> str:
    name = element.get("name")
    return f"<{element.tag}>" if name is None else f"<{element.tag}> {name!r:.60}"
