# SPDX-License-Identifier: Apache-2.0
"""Node parameters are checked at the edge, with errors that name name, value and expectation."""

from typing import Any

import pytest
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec

RATE = ParameterSpec("rate", 1.0, "pace", 0.0, 10.0)
COUNT = ParameterSpec("count", 3, "number", 1, 5)
SIDE = ParameterSpec("side", "right", "side", choices=("left", "right"))
FLAG = ParameterSpec("flag", True, "switch")
NAMES = ParameterSpec("names", ["a"], "list")
PATH = ParameterSpec("path", "", "a word")


@pytest.mark.parametrize(
    ("spec", "given", "taken"),
    [
        (RATE, 2, 2.0),
        (RATE, 0.1, 0.1),
        (COUNT, 5, 5),
        (SIDE, "left", "left"),
        (FLAG, False, False),
        (NAMES, ["x", "y"], ["x", "y"]),
        (NAMES, "", []),
        (PATH, 3, "3"),
        (PATH, True, "true"),
    ],
)
def test_values_become_the_parameters_type(spec: ParameterSpec, given: Any, taken: Any) -> None:
    value = spec.check(given)
    assert value == taken
    assert type(value) is type(spec.default)


@pytest.mark.parametrize(
    ("spec", "given", "complaint"),
    [
        (RATE, 11.0, "parameter rate is 11.0, expected 0 to 10"),
        (RATE, float("nan"), "parameter rate is nan"),
        (RATE, "fast", r"parameter rate is 'fast' \(str\), expected float"),
        (RATE, True, "parameter rate is True"),
        (COUNT, 0, "parameter count is 0, expected 1 to 5"),
        (COUNT, 2.5, r"parameter count is 2.5 \(float\), expected int"),
        (SIDE, "up", "parameter side is 'up', expected one of left, right"),
        (FLAG, 1, r"parameter flag is 1 \(int\), expected bool"),
        (NAMES, [1], r"parameter names is \[1\]"),
    ],
)
def test_refusals_name_parameter_value_and_expectation(
    spec: ParameterSpec, given: Any, complaint: str
) -> None:
    with pytest.raises(ParameterRefused, match=complaint):
        spec.check(given)
