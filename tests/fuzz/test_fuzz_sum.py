# SPDX-License-Identifier: Apache-2.0
"""How many bad inputs were refused in all. Runs last."""

from __future__ import annotations

from pathlib import Path

import pytest
from tally import LONGEST_S, TALLY

LEAST = 10_000


def test_ten_thousand_bad_inputs_were_refused(request: pytest.FixtureRequest) -> None:
    here = Path(__file__).parent
    chosen = {item.path for item in request.session.items}
    left_out = sorted(path.name for path in here.glob("test_*.py") if path not in chosen)
    if left_out or request.config.option.keyword:
        pytest.skip(f"without {', '.join(left_out) or 'some tests'}")
    print(f"\n{TALLY.table()}")
    assert TALLY.refused.total() >= LEAST
    assert max(TALLY.slowest.values()) <= LONGEST_S
