# SPDX-License-Identifier: Apache-2.0
"""How commands end when something is wrong."""

from __future__ import annotations

FAILED = 1
USAGE_ERROR = 2


class CommandError(Exception):
    """A command cannot do what was asked; the text is the one line that its user reads."""
