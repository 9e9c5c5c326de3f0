# SPDX-License-Identifier: Apache-2.0
"""Reading files that others made: never a device or a pipe, never more than was agreed."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class FileRefused(ValueError):
    """A file cannot be read, or is not what may be read; the message names it."""


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file of at most so many bytes.

    Raises:
        FileNotFoundError: there is none.
        FileRefused: it is too long, no regular file, or cannot be read.
    """
    try:
        # A pipe without a writer would keep a plain open waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise FileRefused(f"{path}: cannot be read: {error}") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise FileRefused(f"{path}: is a folder or a device, expected a file")
        if about.st_size > most_bytes:
            raise FileRefused(
                f"{path}: is {about.st_size} bytes long, expected at most {most_bytes}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise FileRefused(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise FileRefused(f"{path}: grows while it is read, expected at most {most_bytes} bytes")
    return content
