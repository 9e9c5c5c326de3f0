# SPDX-License-Identifier: Apache-2.0
"""Reads XML into elements that know their file and line."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from twinloop.launching.errors import LaunchError


@dataclass
class Element:
    """One tag of a launch file."""

    tag: str
    attributes: dict[str, str]
    path: Path
    line: int
    children: list[Element] = field(default_factory=list)

    def error(self, message: str) -> LaunchError:
        """Return an error that names this element's file and line."""
        return LaunchError(message, self.path, self.line)

    def require(self, name: str) -> str:
        """Return an attribute; raise LaunchError where it is missing."""
        if name not in self.attributes:
            raise self.error(f"<{self.tag}> needs the attribute '{name}'")
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    def all(self, tag: str) -> Iterator[Element]:
        """Yield the direct children with this tag."""
        return (child for child in self.children if child.tag == tag)

    def check(self, attributes: Collection[str], children: Collection[str] = ()) -> None:
        """Raise LaunchError for an attribute or a child tag that is not among those named."""
        for name in self.attributes:
            if name not in attributes:
                raise self.error(
                    f"unsupported attribute '{name}' in <{self.tag}>; "
                    f"supported: {', '.join(sorted(attributes)) or 'none'}"
                )
        for child in self.children:
            if child.tag not in children:
                raise child.error(
                    f"unsupported tag <{child.tag}> inside <{self.tag}>; "
                    f"supported: {', '.join(sorted(children)) or 'none'}"
                )


def read_xml(path: Path) -> Element:
    """Return the root element of an XML file.

    Raises:
        LaunchError: the file cannot be read, is not well-formed, or holds text between its tags.
    """
    root: list[Element] = []
    stack: list[Element] = []
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, path, parser.CurrentLineNumber)
        (stack[-1].children if stack else root).append(element)
        stack.append(element)

    def end(_tag: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        if data.strip():
            raise LaunchError(
                f"unexpected text '{data.strip()[:40]}'", path, parser.CurrentLineNumber
            )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise LaunchError(f"cannot read the launch file: {error.strerror}", path) from error
    except expat.ExpatError as error:
        reason = expat.errors.messages[error.code]
        raise LaunchError(f"not well-formed XML: {reason}", path, error.lineno) from error
    return root[0]
