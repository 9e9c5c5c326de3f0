# SPDX-License-Identifier: Apache-2.0
"""Values of node parameters, typed the way ROS 2's launch types them.

A value without a `type` is read as YAML, so `10` is an integer, `10.0` a float, `true` a boolean
and `[1, 2]` a list; `type="str"` keeps the text as it is. A value that holds substitutions is read
after they were resolved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twinloop.launching.context import LaunchContext
from twinloop.launching.errors import SubstitutionError
from twinloop.launching.substitutions import Text, parse, resolve
from twinloop.launching.xml_source import Element
from twinloop.yaml_files import YamlRefused, load_plain

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]

_SCALARS: dict[str, type] = {"str": str, "bool": bool, "int": int, "float": float}
_TYPES = ("yaml", *_SCALARS, *(f"list_of_{name}" for name in _SCALARS))


def read_value(text: str, type_name: str, context: LaunchContext) -> Value:
    """Return the value of a `<param>`.

    Raises:
        SubstitutionError: a substitution that fails.
        ValueError: a value that its type does not admit.
    """
    raw = _convert(text, type_name, keep_text=True)
    if isinstance(raw, list):
        item_type = type_name.removeprefix("list_of_") if type_name != "yaml" else "yaml"
        items = [
            _resolved(item, item_type, context) if isinstance(item, str) else item for item in raw
        ]
        return _uniform(items, text)
    return _resolved(raw, type_name, context) if isinstance(raw, str) else raw


def _resolved(text: str, type_name: str, context: LaunchContext) -> Any:
    template = parse(text)
    value = resolve(template, context)
    if all(isinstance(part, Text) for part in template):
        # A text that was quoted in the file stays one, whatever it looks like.
        if type_name not in ("yaml", "str"):
            raise ValueError(f"'{text}' is not of type {type_name}")
        return value
    return _convert(value, type_name, keep_text=False)


def _convert(text: str, type_name: str, keep_text: bool) -> Any:
    if type_name not in _TYPES:
        raise ValueError(f"unknown type '{type_name}'; expected one of {', '.join(_TYPES)}")
    if type_name == "str":
        return text
    if type_name in ("int", "float"):
        try:
            return _SCALARS[type_name](text)
        except ValueError:
            if keep_text:
                return text
            raise ValueError(f"'{text}' is not of type {type_name}") from None
    if type_name == "bool":
        text = {"1": "true", "0": "false"}.get(text, text)
    value = _load_yaml(text, keep_text)
    if type_name == "yaml":
        return _uniform(value, text, keep_text) if isinstance(value, list) else _scalar(value, text)
    wanted: type | tuple[type, ...] = bool
    if type_name.startswith("list_of_"):
        item = _SCALARS[type_name.removeprefix("list_of_")]
        if isinstance(value, list) and all(
            isinstance(entry, (item, str) if keep_text else item) for entry in value
        ):
            return value
    elif isinstance(value, (wanted, str) if keep_text else wanted):
        return value
    raise ValueError(f"'{text}' is not of type {type_name}")


def _load_yaml(text: str, keep_text: bool) -> Any:
    if not text:
        return text
    try:
        return load_plain(text)
    except YamlRefused as error:
        if keep_text:
            return text
        raise ValueError(f"'{text}' is not YAML; write type=\"str\" for a text") from error


def _scalar(value: Any, text: str) -> Scalar:
    if not isinstance(value, Scalar):
        raise ValueError(
            f"'{text}' is a {type(value).__name__} in YAML; a parameter is a boolean, an integer, "
            'a float, a text or a list of one of them; write type="str" for a text'
        )
    return value


def _uniform(items: list[Any], text: str, allow_text: bool = False) -> list[Scalar]:
    kinds = {type(_scalar(item, text)) for item in items}
    if allow_text:
        kinds.discard(str)
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"the list '{text}' mixes {names}; a parameter's list holds one type")
    return items


def read_parameters(node: Element, context: LaunchContext) -> list[Path | dict[str, Value]]:
    """Return a node's parameters: files and sets of values, in the order in which they apply.

    Raises:
        LaunchError: a `<param>` that is malformed, or a file that does not exist.
    """
    sources: list[Path | dict[str, Value]] = []
    for param in node.all("param"):
        if "from" in param.attributes:
            param.check({"from"})
            sources.append(_file(param, context))
            continue
        if not sources or isinstance(sources[-1], Path):
            sources.append({})
        last = sources[-1]
        assert isinstance(last, dict)
        last.update(_values(param, context, prefix=""))
    return sources


def _file(param: Element, context: LaunchContext) -> Path:
    try:
        path = Path(resolve(parse(param.require("from")), context))
    except SubstitutionError as error:
        raise param.error(f"attribute 'from' of <param>: {error}") from error
    if not path.is_file():
        raise param.error(f"the parameter file '{path}' does not exist")
    return path.absolute()


def _values(param: Element, context: LaunchContext, prefix: str) -> dict[str, Value]:
    param.check({"name", "value", "type"}, {"param"})
    text = param.get("value")
    if (text is None) == (not param.children):
        raise param.error("<param> needs either 'value' (or 'from'), or nested <param> tags")
    try:
        name = prefix + resolve(parse(param.require("name")), context)
    except SubstitutionError as error:
        raise param.error(f"attribute 'name' of <param>: {error}") from error
    if text is None:
        nested: dict[str, Value] = {}
        for child in param.children:
            nested.update(_values(child, context, f"{name}."))
        return nested
    try:
        return {name: read_value(text, param.get("type") or "yaml", context)}
    except (SubstitutionError, ValueError) as error:
        raise param.error(f"parameter '{name}': {error}") from error
