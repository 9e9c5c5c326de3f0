# SPDX-License-Identifier: Apache-2.0
"""YAML that people and programs write, read with bounds: nothing in it can ask for more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from twinloop.files import FileRefused, read_bounded

MOST_BYTES = 4 * 2**20
_MOST_LEVELS = 32
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlRefused(ValueError):
    """A text or file is not the plain YAML that was expected; the message says why."""


def load_plain(text: str) -> Any:
    """Parse YAML of plain values.

    Aliases and deep nesting are refused: with them a small file can ask for a huge amount of
    memory or time.

    Raises:
        YamlRefused: it is not YAML, or not plain.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise YamlRefused("is not plain YAML: it holds an alias, expected plain values")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_LEVELS:
                raise YamlRefused(
                    f"is not plain YAML: it is nested deeper than {_MOST_LEVELS} levels"
                )
        return yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise YamlRefused(f"is not YAML: {' '.join(str(error).split())}") from error
    except YamlRefused:
        raise
    except ValueError as error:  # of what reads like a date or a number, and is none
        raise YamlRefused(f"is not YAML: {error}") from error


def read_yaml(path: Path | str) -> Any:
    """Read a YAML file of plain values.

    Raises:
        FileNotFoundError: there is none.
        YamlRefused: it cannot be read, is too large, not text, or not plain YAML; names the file.
    """
    path = Path(path)
    try:
        return load_plain(read_bounded(path, MOST_BYTES).decode())
    except FileRefused as error:
        raise YamlRefused(str(error)) from error
    except UnicodeDecodeError as error:
        raise YamlRefused(f"{path}: is not text: {error}") from error
    except YamlRefused as error:
        raise YamlRefused(f"{path}: {error}") from error
