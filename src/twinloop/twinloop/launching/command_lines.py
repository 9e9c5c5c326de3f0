# SPDX-License-Identifier: Apache-2.0
"""Splits the command lines of launch files into arguments, before substitutions are resolved."""

from __future__ import annotations

import shlex

from twinloop.launching.context import LaunchContext
from twinloop.launching.errors import SubstitutionError
from twinloop.launching.substitutions import Call, Template, Text, parse, resolve


def split_command(text: str, context: LaunchContext) -> list[str]:
    """Return the arguments of a command line.

    Only the literal text is split, by the shell's rules: what a substitution gives stays within
    one argument, spaces included.

    Raises:
        SubstitutionError: a substitution that fails, or an unclosed quote.
    """
    return [resolve(argument, context) for argument in _split(parse(text), text)]


def _split(template: Template, text: str) -> list[Template]:
    arguments: list[list[Text | Call]] = []
    is_open = False
    for part in template:
        if isinstance(part, Call):
            if is_open:
                arguments[-1].append(part)
            else:
                arguments.append([part])
            is_open = True
            continue
        try:
            words = shlex.split(part.text)
        except ValueError as error:
            raise SubstitutionError(f"'{text}' cannot be split: {error}") from error
        if part.text[:1].isspace():
            is_open = False
        for word in words:
            if is_open:
                arguments[-1].append(Text(word))
            else:
                arguments.append([Text(word)])
            is_open = False
        is_open = bool(words) and not part.text[-1:].isspace()
    return list(arguments)
