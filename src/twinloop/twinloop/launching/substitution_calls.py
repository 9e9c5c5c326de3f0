# SPDX-License-Identifier: Apache-2.0
"""What each `$(name ...)` stands for."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable

from twinloop.launching.context import LaunchContext
from twinloop.launching.errors import SubstitutionError
from twinloop.launching.expressions import evaluate

_COMMAND_TIMEOUT_S = 60.0


def package_prefix(package: str) -> str:
    """Return the install prefix of a package from the ament index.

    Raises:
        SubstitutionError: the package is not there.
    """
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    except ImportError as error:
        raise SubstitutionError(f"package '{package}' was not found: no ROS 2 here") from error
    try:
        return str(get_package_prefix(package))
    except (PackageNotFoundError, LookupError, ValueError) as error:
        prefixes = os.environ.get("AMENT_PREFIX_PATH", "") or "an empty AMENT_PREFIX_PATH"
        raise SubstitutionError(f"package '{package}' was not found in {prefixes}") from error


def boolean(text: str) -> bool:
    """Read a condition the way `if` and `unless` do: true, 1, false or 0 in any case.

    Raises:
        SubstitutionError: anything else.
    """
    word = text.strip().lower()
    if word not in ("true", "1", "false", "0"):
        raise SubstitutionError(f"'{text}' is not a condition; expected true, false, 1 or 0")
    return word in ("true", "1")


def _var(context: LaunchContext, name: str, default: str | None = None) -> str:
    value = context.variables.get(name, default)
    if value is None:
        known = ", ".join(sorted(context.variables)) or "none"
        raise SubstitutionError(f"the variable '{name}' does not exist here; known: {known}")
    return value


def _env(context: LaunchContext, name: str, default: str | None = None) -> str:
    value = context.environment.get(name, default)
    if value is None:
        raise SubstitutionError(
            f"the environment variable '{name}' is not set; give a default with $(env {name} VALUE)"
        )
    return value


def _find_package_share(_context: LaunchContext, package: str) -> str:
    return os.path.join(package_prefix(package), "share", package)


def _find_package_prefix(_context: LaunchContext, package: str) -> str:
    return package_prefix(package)


def _find_executable(context: LaunchContext, name: str) -> str:
    found = shutil.which(name, path=context.environment.get("PATH"))
    if found is None:
        raise SubstitutionError(f"the executable '{name}' was not found on the PATH")
    return found


def _directory(context: LaunchContext) -> str:
    if context.file is None:
        raise SubstitutionError("$(dirname) has no meaning outside a launch file")
    return str(context.file.parent)


def _filename(context: LaunchContext) -> str:
    if context.file is None:
        raise SubstitutionError("$(filename) has no meaning outside a launch file")
    return str(context.file)


def _evaluate(_context: LaunchContext, expression: str) -> str:
    return str(evaluate(expression))


def _command(_context: LaunchContext, command: str, on_stderr: str = "fail") -> str:
    if on_stderr not in ("fail", "ignore", "warn", "capture"):
        raise SubstitutionError(
            f"on_stderr of $(command ...) is '{on_stderr}'; expected fail, ignore, warn or capture"
        )
    try:
        done = subprocess.run(
            shlex.split(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if on_stderr == "capture" else subprocess.PIPE,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
        )
    except (OSError, ValueError, IndexError) as error:
        raise SubstitutionError(f"the command '{command}' cannot be run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise SubstitutionError(
            f"the command '{command}' took longer than {_COMMAND_TIMEOUT_S:.0f} s"
        ) from error
    if done.returncode != 0:
        raise SubstitutionError(
            f"the command '{command}' failed with exit code {done.returncode}: "
            f"{(done.stderr or done.stdout).strip()}"
        )
    if done.stderr and on_stderr == "fail":
        raise SubstitutionError(f"the command '{command}' wrote to stderr: {done.stderr.strip()}")
    return done.stdout


def _not(_context: LaunchContext, value: str) -> str:
    return str(not boolean(value)).lower()


def _and(_context: LaunchContext, left: str, right: str) -> str:
    return str(boolean(left) and boolean(right)).lower()


def _or(_context: LaunchContext, left: str, right: str) -> str:
    return str(boolean(left) or boolean(right)).lower()


def _equals(_context: LaunchContext, left: str, right: str) -> str:
    return str(_equal(left, right)).lower()


def _not_equals(_context: LaunchContext, left: str, right: str) -> str:
    return str(not _equal(left, right)).lower()


def _equal(left: str, right: str) -> bool:
    words = ("true", "false", "1", "0")
    if left.lower() in words and right.lower() in words:
        return boolean(left) == boolean(right)
    try:
        return math.isclose(float(left), float(right))
    except ValueError:
        return left == right


def _if(context: LaunchContext, condition: str, then: str, otherwise: str = "") -> str:
    return then if boolean(condition) else otherwise


# Name: least and most arguments, function.
CALLS: dict[str, tuple[int, int, Callable[..., str]]] = {
    "var": (1, 2, _var),
    "env": (1, 2, _env),
    "find-pkg-share": (1, 1, _find_package_share),
    "find-pkg-prefix": (1, 1, _find_package_prefix),
    "find-exec": (1, 1, _find_executable),
    "dirname": (0, 0, _directory),
    "filename": (0, 0, _filename),
    "eval": (1, 1, _evaluate),
    "command": (1, 2, _command),
    "not": (1, 1, _not),
    "and": (2, 2, _and),
    "or": (2, 2, _or),
    "equals": (2, 2, _equals),
    "not-equals": (2, 2, _not_equals),
    "if": (2, 3, _if),
}
