# SPDX-License-Identifier: Apache-2.0
"""Turns `<node>` and `<executable>` into processes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from typing import Any

from twinloop.launching.command_lines import split_command
from twinloop.launching.context import NAMESPACE, LaunchContext
from twinloop.launching.description import ParameterSet, ProcessSpec
from twinloop.launching.errors import SubstitutionError
from twinloop.launching.parameters import read_parameters
from twinloop.launching.substitution_calls import package_prefix
from twinloop.launching.substitutions import expand
from twinloop.launching.xml_source import Element

CONDITIONS = {"if", "unless"}
_PROCESS = CONDITIONS | {
    "cwd", "launch-prefix", "name", "on_exit", "output", "respawn", "respawn_delay",
    "respawn_max_retries", "sigkill_timeout", "sigterm_timeout",
}  # fmt: skip
_NODE = _PROCESS | {"pkg", "exec", "exec_name", "namespace", "args", "ros_args"}
_EXECUTABLE = _PROCESS | {"cmd", "shell"}
_OUTPUTS = ("screen", "log", "both", "own_log", "full")
_NODE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMESPACE = re.compile(r"/|(/[A-Za-z_][A-Za-z0-9_]*)+")


def expanded(element: Element, name: str, context: LaunchContext, default: Any = None) -> Any:
    """Return an attribute with its substitutions resolved, or the default where it is absent.

    Raises:
        LaunchError: a substitution that fails.
    """
    text = element.get(name)
    if text is None:
        return default
    try:
        return expand(text, context)
    except SubstitutionError as error:
        raise element.error(f"attribute '{name}' of <{element.tag}>: {error}") from error


def required(element: Element, name: str, context: LaunchContext) -> str:
    """Return an attribute that must be there, with its substitutions resolved."""
    element.require(name)
    return str(expanded(element, name, context))


def flag(element: Element, name: str, text: str | None, default: bool) -> bool:
    """Read a boolean attribute: true, false, 1 or 0, or what else YAML takes for one."""
    if text is None:
        return default
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise element.error(
            f"attribute '{name}' of <{element.tag}> is '{text}'; expected true or false"
        )
    return words[text.lower()]


def join_namespace(base: str | None, namespace: str | None) -> str | None:
    """Return the absolute namespace: `namespace` below `base`, or by itself if it is absolute."""
    if namespace is None and base is None:
        return None
    if namespace is None:
        joined = base or ""
    elif not base or namespace.startswith("/"):
        joined = namespace
    else:
        joined = f"{base.rstrip('/')}/{namespace}"
    return "/" + joined.strip("/")


def absolute_namespace(element: Element, namespace: str | None, context: LaunchContext) -> Any:
    """Return a namespace made absolute below the pushed one; None where there is neither."""
    joined = join_namespace(context.variables.get(NAMESPACE), namespace)
    if joined is not None and not _NAMESPACE.fullmatch(joined):
        raise element.error(
            f"'{joined}' is not a ROS namespace; its parts hold letters, digits and _, "
            "and do not start with a digit"
        )
    return joined


def read_node(node: Element, context: LaunchContext, number: int) -> ProcessSpec:
    """Return the process of a `<node>`; `number` is its place among all processes.

    Raises:
        LaunchError: something in the tag is unsupported, missing or cannot be found.
    """
    node.check(_NODE, {"param", "remap", "env"})
    executable = required(node, "exec", context)
    command: list[str | ParameterSet] = [*_prefix(node, context), _find(node, executable, context)]
    command += _split(node, "args", context)
    if ros_arguments := _split(node, "ros_args", context):
        command += ["--ros-args", *ros_arguments]
    command.append("--ros-args")
    name = expanded(node, "name", context)
    if name is not None:
        if not _NODE_NAME.fullmatch(name):
            raise node.error(
                f"'{name}' is not a ROS node name; it holds letters, digits and _, "
                "and does not start with a digit"
            )
        command += ["-r", f"__node:={name}"]
    namespace = absolute_namespace(node, expanded(node, "namespace", context), context)
    if namespace is not None:
        command += ["-r", f"__ns:={namespace}"]
    full_name = "/**"
    if name is not None and namespace is not None:
        full_name = f"{namespace.rstrip('/')}/{name}"
    for source in read_parameters(node, context):
        command.append("--params-file")
        command.append(ParameterSet(full_name, source) if isinstance(source, dict) else str(source))
    for remap in node.all("remap"):
        remap.check({"from", "to"})
        renamed, target = required(remap, "from", context), required(remap, "to", context)
        command += ["-r", f"{renamed}:={target}"]
    label = expanded(node, "exec_name", context, os.path.basename(executable))
    return _process(node, context, f"{label}-{number}", command)


def read_executable(element: Element, context: LaunchContext, number: int) -> ProcessSpec:
    """Return the process of an `<executable>`; `number` is its place among all processes.

    Raises:
        LaunchError: something in the tag is unsupported, missing or cannot be found.
    """
    element.check(_EXECUTABLE, {"env"})
    element.require("cmd")
    words = _split(element, "cmd", context)
    if not words:
        raise element.error("attribute 'cmd' of <executable> is empty")
    is_shell_command = flag(element, "shell", element.get("shell"), default=False)
    if (
        not is_shell_command
        and shutil.which(words[0], path=context.environment.get("PATH")) is None
    ):
        raise element.error(f"the executable '{words[0]}' was not found on the PATH")
    label = expanded(element, "name", context, os.path.basename(words[0]))
    command = [*_prefix(element, context), *words]
    return _process(
        element, context, f"{label}-{number}", command, is_shell_command=is_shell_command
    )


def _process(
    element: Element,
    context: LaunchContext,
    label: str,
    command: list[Any],
    is_shell_command: bool = False,
) -> ProcessSpec:
    environment = dict(context.environment)
    for variable in element.all("env"):
        variable.check({"name", "value"})
        environment[required(variable, "name", context)] = required(variable, "value", context)
    output = expanded(element, "output", context, "log")
    if output not in _OUTPUTS:
        raise element.error(f"output is '{output}'; expected one of {', '.join(_OUTPUTS)}")
    on_exit = element.get("on_exit")
    if on_exit not in (None, "shutdown"):
        raise element.error(f"on_exit is '{on_exit}'; the one supported value is 'shutdown'")
    return ProcessSpec(
        label=label,
        command=tuple(command),
        environment=environment,
        cwd=expanded(element, "cwd", context),
        is_shell_command=is_shell_command,
        output=output,
        respawn=flag(element, "respawn", expanded(element, "respawn", context), default=False),
        respawn_delay_s=_seconds(element, "respawn_delay", 0.0),
        respawn_max_retries=_integer(element, "respawn_max_retries", -1),
        ends_launch=on_exit == "shutdown",
        sigterm_after_s=_seconds(element, "sigterm_timeout", ProcessSpec.sigterm_after_s),
        sigkill_after_s=_seconds(element, "sigkill_timeout", ProcessSpec.sigkill_after_s),
    )


def _find(node: Element, executable: str, context: LaunchContext) -> str:
    package = expanded(node, "pkg", context)
    if package is None:
        found = shutil.which(executable, path=context.environment.get("PATH"))
        if found is None:
            raise node.error(f"the executable '{executable}' was not found on the PATH")
        return found
    try:
        folder = os.path.join(package_prefix(package), "lib", package)
    except SubstitutionError as error:
        raise node.error(str(error)) from error
    found = shutil.which(executable, path=folder)
    if found is None:
        raise node.error(f"package '{package}' has no executable '{executable}' in {folder}")
    return found


def _prefix(element: Element, context: LaunchContext) -> list[str]:
    return shlex.split(expanded(element, "launch-prefix", context, ""))


def _split(element: Element, name: str, context: LaunchContext) -> list[str]:
    try:
        return split_command(element.get(name) or "", context)
    except SubstitutionError as error:
        raise element.error(f"attribute '{name}' of <{element.tag}>: {error}") from error


def _seconds(element: Element, name: str, default: float) -> float:
    try:
        seconds = float(element.get(name) or default)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        raise element.error(
            f"{name} is '{element.get(name)}'; expected a number of seconds, 0 or more"
        )
    return seconds


def _integer(element: Element, name: str, default: int) -> int:
    try:
        return int(element.get(name) or default)
    except ValueError:
        raise element.error(f"{name} is '{element.get(name)}'; expected an integer") from None
