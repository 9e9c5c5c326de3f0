# SPDX-License-Identifier: Apache-2.0
"""Reads a ROS 2 XML launch file: applies arguments, conditions, groups and includes.

The whole file is read before anything runs, so a mistake anywhere in it starts nothing. As in
ROS 2's launch, groups scope variables and includes do not, and what stands in a timer sees the
variables as they are after everything outside timers was read.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from twinloop.launching.context import NAMESPACE, LaunchContext
from twinloop.launching.description import (
    Argument,
    LaunchDescription,
    LogMessage,
    ProcessSpec,
    Step,
)
from twinloop.launching.errors import LaunchError, SubstitutionError
from twinloop.launching.process_tags import (
    CONDITIONS,
    absolute_namespace,
    expanded,
    flag,
    read_executable,
    read_node,
    required,
)
from twinloop.launching.substitution_calls import boolean
from twinloop.launching.xml_source import Element, read_xml

_DEEPEST_INCLUDE = 20


def load_launch_file(
    path: Path | str,
    arguments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> LaunchDescription:
    """Return what a launch file comes to with these arguments.

    Args:
        path: the XML launch file.
        arguments: values by argument name, as in `name:=value`.
        environment: what the processes inherit; the one of this process by default.

    Raises:
        LaunchError: with file and line, for whatever is unsupported, missing or cannot be found.
    """
    path = Path(path).absolute()
    given = dict(arguments or {})
    root = _read_root(path)
    reading = _Reading(given, os.environ if environment is None else environment)
    reading.read_file(root)
    reading.read_timers()
    known = {argument.name for argument in _declared(root, False)} | set(reading.arguments)
    for name in given:
        if name not in known:
            raise LaunchError(
                f"unknown argument '{name}'; known: {', '.join(sorted(known)) or 'none'}", path
            )
    return LaunchDescription(path, reading.arguments, tuple(reading.steps))


def read_arguments(path: Path | str) -> list[Argument]:
    """Return the arguments that a launch file declares, those inside groups included.

    Raises:
        LaunchError: the file cannot be read.
    """
    arguments: dict[str, Argument] = {}
    for argument in _declared(_read_root(Path(path).absolute()), False):
        arguments.setdefault(argument.name, argument)
    return list(arguments.values())


def parse_assignments(words: list[str]) -> dict[str, str]:
    """Return the arguments in words such as `episodes:=8`; the last of two counts.

    Raises:
        LaunchError: a word that is not `name:=value`.
    """
    arguments = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not name or not separator:
            raise LaunchError(f"malformed argument '{word}'; expected name:=value")
        arguments[name] = value
    return arguments


def _read_root(path: Path) -> Element:
    if path.suffix not in (".xml", ".launch"):
        raise LaunchError("only XML launch files are supported (.launch.xml)", path)
    root = read_xml(path)
    if root.tag != "launch":
        raise root.error(f"the root tag is <{root.tag}>; expected <launch>")
    root.check((), _TAGS)
    return root


def _declared(element: Element, is_conditional: bool) -> list[Argument]:
    arguments = []
    for child in element.children:
        conditional = is_conditional or not CONDITIONS.isdisjoint(child.attributes)
        if child.tag == "arg":
            choices = tuple(choice.require("value") for choice in child.all("choice"))
            arguments.append(
                Argument(
                    child.require("name"),
                    child.get("default"),
                    child.get("description") or "",
                    choices,
                    conditional,
                )
            )
        elif child.tag in ("group", "timer"):
            arguments += _declared(child, conditional)
    return arguments


class _Reading:
    """One pass over a launch file and all that it includes."""

    def __init__(self, given: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.context = LaunchContext(given, environment)
        self.arguments: dict[str, str] = {}
        self.steps: list[Step] = []
        self._delay_s = 0.0
        self._includes: list[Path] = []
        self._process_numbers = itertools.count(1)
        self._order = itertools.count()
        # (due, order, element, file): read when all else was, soonest first.
        self._timers: list[tuple[float, int, Element, Path | None]] = []

    def read_file(self, root: Element) -> None:
        if len(self._includes) >= _DEEPEST_INCLUDE:
            raise root.error(f"files are included more than {_DEEPEST_INCLUDE} levels deep")
        self._includes.append(root.path)
        with self.context.inside(root.path):
            self._read_children(root)
        self._includes.pop()

    def read_timers(self) -> None:
        while self._timers:
            due, _, timer, file = heapq.heappop(self._timers)
            self._delay_s = due
            with self.context.inside(file) if file else self.context.scope():
                self._read_children(timer)

    def _read_children(self, parent: Element) -> None:
        for element in parent.children:
            if element.tag not in _TAGS:
                raise element.error(
                    f"unsupported tag <{element.tag}>; supported: {', '.join(sorted(_TAGS))}"
                )
            if self._applies(element):
                _TAGS[element.tag](self, element)

    def _applies(self, element: Element) -> bool:
        if set(element.attributes) >= CONDITIONS:
            raise element.error(f"<{element.tag}> has both 'if' and 'unless'; give one")
        for name in CONDITIONS & set(element.attributes):
            try:
                return boolean(expanded(element, name, self.context)) == (name == "if")
            except SubstitutionError as error:
                raise element.error(f"attribute '{name}' of <{element.tag}>: {error}") from error
        return True

    def _add(self, action: ProcessSpec | LogMessage) -> None:
        self.steps.append(Step(self._delay_s, action))

    def _arg(self, element: Element) -> None:
        element.check({"name", "default", "description"} | CONDITIONS, {"choice"})
        name = element.require("name")
        if name not in self.context.variables:
            default = expanded(element, "default", self.context)
            if default is None:
                hint = f" ({text})" if (text := element.get("description")) else ""
                raise element.error(
                    f"the argument '{name}'{hint} is required; give it as {name}:=VALUE"
                )
            self.context.variables[name] = default
        value = self.context.variables[name]
        choices = []
        for choice in element.all("choice"):
            choice.check({"value"})
            choices.append(choice.require("value"))
        if choices and value not in choices:
            raise element.error(
                f"the argument '{name}' is '{value}'; expected one of {', '.join(choices)}"
            )
        self.arguments.setdefault(name, value)

    def _let(self, element: Element) -> None:
        element.check({"name", "value"} | CONDITIONS)
        name = required(element, "name", self.context)
        self.context.variables[name] = required(element, "value", self.context)

    def _group(self, element: Element) -> None:
        element.check({"scoped"} | CONDITIONS, _TAGS)
        if not flag(element, "scoped", element.get("scoped"), default=True):
            self._read_children(element)
            return
        with self.context.scope():
            self._read_children(element)

    def _push_namespace(self, element: Element) -> None:
        element.check({"namespace"} | CONDITIONS)
        namespace = required(element, "namespace", self.context)
        self.context.variables[NAMESPACE] = absolute_namespace(element, namespace, self.context)

    def _include(self, element: Element) -> None:
        element.check({"file"} | CONDITIONS, {"arg"})
        path = Path(required(element, "file", self.context))
        if not path.is_file():
            raise element.error(f"the included file '{path}' does not exist")
        for argument in element.all("arg"):
            argument.check({"name", "value"})
            name = required(argument, "name", self.context)
            self.context.variables[name] = required(argument, "value", self.context)
        self.read_file(_read_root(path.absolute()))

    def _set_environment(self, element: Element) -> None:
        element.check({"name", "value"} | CONDITIONS)
        name = required(element, "name", self.context)
        self.context.environment[name] = required(element, "value", self.context)

    def _unset_environment(self, element: Element) -> None:
        element.check({"name"} | CONDITIONS)
        self.context.environment.pop(required(element, "name", self.context), None)

    def _log(self, element: Element) -> None:
        element.check({"message"} | CONDITIONS)
        self._add(LogMessage(required(element, "message", self.context)))

    def _timer(self, element: Element) -> None:
        element.check({"period"} | CONDITIONS, _TAGS)
        text = required(element, "period", self.context)
        try:
            period_s = float(text)
        except ValueError:
            period_s = -1.0
        if not 0.0 <= period_s < float("inf"):
            raise element.error(f"period is '{text}'; expected a number of seconds, 0 or more")
        due = self._delay_s + period_s
        heapq.heappush(self._timers, (due, next(self._order), element, self.context.file))

    def _node(self, element: Element) -> None:
        self._add(read_node(element, self.context, next(self._process_numbers)))

    def _executable(self, element: Element) -> None:
        self._add(read_executable(element, self.context, next(self._process_numbers)))


_TAGS: dict[str, Callable[[_Reading, Element], None]] = {
    "arg": _Reading._arg,
    "let": _Reading._let,
    "group": _Reading._group,
    "push_ros_namespace": _Reading._push_namespace,
    "push-ros-namespace": _Reading._push_namespace,
    "include": _Reading._include,
    "node": _Reading._node,
    "set_env": _Reading._set_environment,
    "unset_env": _Reading._unset_environment,
    "executable": _Reading._executable,
    "timer": _Reading._timer,
    "log": _Reading._log,
}
