# SPDX-License-Identifier: Apache-2.0
"""The fault tests use the station that the node tests keep."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "nodes"))
