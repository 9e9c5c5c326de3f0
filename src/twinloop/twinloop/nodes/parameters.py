# SPDX-License-Identifier: Apache-2.0
"""Declared parameters: each with a description, a type and a range, checked at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


class ParameterRefused(ValueError):
    """A parameter's value is of the wrong type, out of range or not among its choices."""


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter. The type is that of the default: bool, int, float, str or list of str."""

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    dynamic: bool = False

    def check(self, value: Any) -> Any:
        """Return the value as the parameter's type.

        A number given without a point is taken for a float, and any scalar for a string, since
        launch files and command lines do not quote.

        Raises:
            ParameterRefused: naming the parameter, the value and what was expected.
        """
        value = self._coerce(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            low = self.minimum if self.minimum is not None else float("-inf")
            high = self.maximum if self.maximum is not None else float("inf")
            if not low <= value <= high:
                raise ParameterRefused(
                    f"parameter {self.name} is {value}, expected {low:g} to {high:g}"
                )
        if self.choices is not None and value not in self.choices:
            raise ParameterRefused(
                f"parameter {self.name} is {value!r}, expected one of {', '.join(self.choices)}"
            )
        return value

    def _coerce(self, value: Any) -> Any:
        kind = type(self.default)
        if kind is list:
            if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
                return list(value)
            # An empty list has no type on a command line; it arrives as an empty string.
            if value == "":
                return []
        elif kind is bool:
            if isinstance(value, bool):
                return value
        elif isinstance(value, bool):
            if kind is str:
                return str(value).lower()
        elif kind is float:
            if isinstance(value, int | float):
                return float(value)
        elif kind is int:
            if isinstance(value, int):
                return value
        elif kind is str and isinstance(value, str | int | float):
            return str(value)
        raise ParameterRefused(
            f"parameter {self.name} is {value!r} ({type(value).__name__}), expected {kind.__name__}"
        )

    def descriptor(self) -> ParameterDescriptor:
        """Describe the parameter to `ros2 param describe`."""
        descriptor = ParameterDescriptor(
            description=self.description, read_only=not self.dynamic, dynamic_typing=True
        )
        if self.choices is not None:
            descriptor.additional_constraints = f"one of {', '.join(self.choices)}"
        if self.minimum is None or self.maximum is None:
            return descriptor
        if isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.minimum, to_value=self.maximum)
            ]
        elif isinstance(self.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))
            ]
        return descriptor
