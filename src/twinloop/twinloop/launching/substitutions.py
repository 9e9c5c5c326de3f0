# SPDX-License-Identifier: Apache-2.0
"""Parses and resolves the substitutions of ROS 2 launch files: `$(var twin)`, `$(env HOME)` ...

Arguments are separated by one space and are bare words, or texts in single or double quotes; both
may hold further substitutions. A backslash takes its meaning from the character after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from twinloop.launching.context import LaunchContext
from twinloop.launching.errors import SubstitutionError
from twinloop.launching.substitution_calls import CALLS

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Text:
    """Literal text between substitutions."""

    text: str


@dataclass(frozen=True)
class Call:
    """One substitution: its name, and each argument as a template of its own."""

    name: str
    arguments: tuple[Template, ...]


Template = Sequence[Text | Call]


def expand(text: str, context: LaunchContext) -> str:
    """Return the text with every substitution resolved.

    Raises:
        SubstitutionError: malformed, unknown or unresolvable.
    """
    return resolve(parse(text), context)


def resolve(template: Template, context: LaunchContext) -> str:
    """Return the text that a parsed template stands for."""
    return "".join(
        part.text if isinstance(part, Text) else _call(part, context) for part in template
    )


def _call(call: Call, context: LaunchContext) -> str:
    least, most, function = CALLS[call.name]
    arguments = [resolve(argument, context) for argument in call.arguments]
    if not least <= len(arguments) <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        raise SubstitutionError(
            f"$({call.name} ...) takes {expected} argument(s), got {len(arguments)}; "
            "an argument with spaces needs quotes"
        )
    return function(context, *arguments)


def parse(text: str) -> Template:
    """Return the parts of a text.

    Raises:
        SubstitutionError: malformed, or a substitution that is not supported.
    """
    return _Parser(text).template(quote="")


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def template(self, quote: str) -> list[Text | Call]:
        """Parse to the closing quote, or to the end of the text where there is none."""
        parts: list[Text | Call] = []
        literal = ""
        while self.at < len(self.text):
            if quote and self.text[self.at] == quote:
                break
            if self.text.startswith("$(", self.at):
                parts += [Text(literal)] if literal else []
                literal = ""
                parts.append(self.substitution(quote))
            else:
                literal += self.character(in_word=False)
        if quote and self.at == len(self.text):
            raise SubstitutionError(f"'{self.text}' has no closing {quote}")
        return parts + ([Text(literal)] if literal else [])

    def character(self, in_word: bool) -> str:
        """Take one character, or the one that a backslash escapes."""
        character = self.text[self.at]
        following = self.text[self.at + 1 : self.at + 2]
        if character == "\\" and following and not (in_word and following == " "):
            self.at += 2
            return following
        self.at += 1
        return character

    def substitution(self, quote: str) -> Call:
        self.at += len("$(")
        match = _IDENTIFIER.match(self.text, self.at)
        if match is None:
            raise SubstitutionError(f"'{self.text}' has a $( without a name after it")
        name = match.group()
        if name not in CALLS:
            raise SubstitutionError(
                f"unknown substitution $({name} ...); supported: {', '.join(sorted(CALLS))}"
            )
        self.at = match.end()
        arguments: list[Template] = []
        while self.text.startswith(" ", self.at):
            self.at += 1
            arguments.append(self.argument(quote))
        if not self.text.startswith(")", self.at):
            found = self.text[self.at : self.at + 1]
            raise SubstitutionError(
                f"$({name} ...) in '{self.text}' "
                + (f"has an unexpected {found}" if found else "is not closed")
            )
        self.at += 1
        return Call(name, tuple(arguments))

    def argument(self, quote: str) -> list[Text | Call]:
        opening = self.text[self.at : self.at + 1]
        if not quote and opening in ("'", '"'):
            self.at += 1
            parts = self.template(opening)
            self.at += 1
            return parts
        return self.word(quote)

    def word(self, quote: str) -> list[Text | Call]:
        """Parse a bare argument, which ends before a space or a closing parenthesis."""
        ends = " ()" + (quote or "'\"")
        parts: list[Text | Call] = []
        literal = ""
        while self.at < len(self.text) and self.text[self.at] not in ends:
            if self.text.startswith("$(", self.at):
                parts += [Text(literal)] if literal else []
                literal = ""
                parts.append(self.substitution(quote))
            else:
                literal += self.character(in_word=True)
        parts += [Text(literal)] if literal else []
        if not parts:
            raise SubstitutionError(
                f"'{self.text}' has an empty argument; arguments are separated by one space"
            )
        return parts
