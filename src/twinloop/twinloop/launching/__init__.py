# SPDX-License-Identifier: Apache-2.0
"""Runs ROS 2 XML launch files where `ros2 launch` is absent."""

from twinloop.launching.description import Argument, LaunchDescription, ProcessSpec
from twinloop.launching.errors import LaunchError
from twinloop.launching.process import LaunchLine
from twinloop.launching.reading import load_launch_file, parse_assignments, read_arguments
from twinloop.launching.runner import LaunchResult, LaunchRunner, format_line, print_line

__all__ = [
    "Argument",
    "LaunchDescription",
    "LaunchError",
    "LaunchLine",
    "LaunchResult",
    "LaunchRunner",
    "ProcessSpec",
    "format_line",
    "load_launch_file",
    "parse_assignments",
    "print_line",
    "read_arguments",
]
