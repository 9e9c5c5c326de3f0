# SPDX-License-Identifier: Apache-2.0
"""Substitutions and expressions of launch files."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinloop.launching.context import LaunchContext
from twinloop.launching.errors import SubstitutionError
from twinloop.launching.expressions import evaluate
from twinloop.launching.substitutions import expand

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/home/robot"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$HOME costs 5$", "$HOME costs 5$"),
        (r"\$(var a)", "$(var a)"),
        ("$(var a)$(var b)", "12"),
        ("$(var $(var name))", "1"),
        ("$(var none fallback)", "fallback"),
        ("$(var none 'two words')", "two words"),
        ("$(env HOME)/x", "/home/robot/x"),
        ("$(env NOPE $(var a))", "1"),
        ("$(eval '$(var a) + 2')", "3"),
        ("$(eval \"'$(var name)' in ('a', 'b')\")", "True"),
        ("$(if $(equals 1.0 1) yes no)", "yes"),
        ("$(not-equals a b)", "true"),
        ("$(find-exec sh)", "/usr/bin/sh"),
        ("$(command 'echo $(var a) two')", "1 two\n"),
    ],
)
def test_substitution_resolves(text, expected):
    context = LaunchContext({"a": "1", "b": "2", "name": "a"}, ENVIRONMENT)
    assert expand(text, context) == expected


@pytest.mark.parametrize(
    "text", ["$(var)", "$(var  a)", "$(var a", "$()", "$(nope)", "$(var 'a)", "$(find-exec nope)"]
)
def test_malformed_substitution_is_refused(text):
    with pytest.raises(SubstitutionError):
        expand(text, LaunchContext({"a": "1"}, ENVIRONMENT))


@pytest.mark.parametrize("command", ["false", "no_such_program", "sh -c 'echo x >&2'"])
def test_failing_command_is_refused(command):
    with pytest.raises(SubstitutionError):
        expand(f'$(command "{command}")', LaunchContext({}, ENVIRONMENT))


@given(st.text(alphabet="ab$()'\"\\ -", max_size=30))
def test_any_text_is_either_resolved_or_refused(text):
    with contextlib.suppress(SubstitutionError):
        assert isinstance(expand(text, LaunchContext({"a": "1"}, {})), str)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3 ** 2 // 4 % 5 - -1", 1 + 2 * 3**2 // 4 % 5 - -1),
        ("'mujoco' != 'none' and not False", True),
        ("'' or 'x'", "x"),
        ("1 < 2 <= 2 < 1", False),
        ("'b' in ['a', 'b']", True),
        ("4.0 if 1 > 2 else 5.0", 5.0),
        ("round(sqrt(2) * math.pi, 3)", 4.443),
        ("int('7') + len('abc') + max(1, 2)", 12),
    ],
)
def test_expression_has_pythons_value(expression, expected):
    assert evaluate(expression) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "open('/etc/passwd')",
        "[x for x in (1, 2)]",
        "(lambda: 1)()",
        "'a'.join(['b'])",
        "9 ** 9 ** 9",
        "'a' * 10 ** 9",
        "1 / 0",
        "1 +",
        "sqrt",
        "f'{1}'",
        "'%1000000000d' % 1",
    ],
)
def test_expression_beyond_the_allowed_is_refused(expression):
    with pytest.raises(SubstitutionError):
        evaluate(expression)
