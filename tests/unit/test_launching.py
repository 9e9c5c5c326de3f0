# SPDX-License-Identifier: Apache-2.0
"""Launch files: arguments, tags, substitutions, parameters, and errors that name their place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from twinloop.launching import (
    LaunchDescription,
    LaunchError,
    ProcessSpec,
    load_launch_file,
    parse_assignments,
    read_arguments,
)
from twinloop.launching.description import LogMessage, ParameterSet
from twinloop.launching.runner import write_parameter_files

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/home/robot"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package `cell` with the executable `arm_node`."""
    prefix = tmp_path / "install"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "cell").write_text("")
    (prefix / "share" / "cell").mkdir()
    executable = prefix / "lib" / "cell" / "arm_node"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    return SimpleNamespace(prefix=prefix, executable=str(executable))


def load(tmp_path: Path, body: str, **arguments: str) -> LaunchDescription:
    path = tmp_path / "cell.launch.xml"
    path.write_text(f"<launch>\n{body}\n</launch>\n")
    return load_launch_file(path, arguments, ENVIRONMENT)


def messages(description: LaunchDescription) -> list[str]:
    return [step.action.text for step in description.steps if isinstance(step.action, LogMessage)]


def only(description: LaunchDescription) -> ProcessSpec:
    (process,) = description.processes
    return process


def parameters(process: ProcessSpec) -> dict:
    (values,) = [word for word in process.command if isinstance(word, ParameterSet)]
    return values.values


# Arguments, variables, scopes


def test_argument_takes_given_value_else_default(tmp_path):
    body = '<arg name="rtf" default="1.0"/><log message="$(var rtf)"/>'
    assert messages(load(tmp_path, body)) == ["1.0"]
    description = load(tmp_path, body, rtf="0.5")
    assert messages(description) == ["0.5"]
    assert description.arguments == {"rtf": "0.5"}


def test_default_may_use_an_earlier_argument(tmp_path):
    body = (
        '<arg name="a" default="x"/><arg name="b" default="$(var a)/y"/><log message="$(var b)"/>'
    )
    assert messages(load(tmp_path, body, a="z")) == ["z/y"]


def test_group_scopes_variables_and_environment(tmp_path):
    body = """
    <let name="a" value="outer"/>
    <group>
      <let name="a" value="inner"/><set_env name="B" value="1"/><log message="$(var a)"/>
    </group>
    <group scoped="false"><let name="c" value="kept"/></group>
    <log message="$(var a) $(env B none) $(var c)"/>"""
    assert messages(load(tmp_path, body)) == ["inner", "outer none kept"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('if="true"', True),
        ('if=" True "', True),
        ('if="0"', False),
        ('unless="false"', True),
        ("if=\"$(eval '\\'$(var twin)\\' != \\'none\\'')\"", True),
        ("if=\"$(eval &quot;'$(var twin)' == 'none'&quot;)\"", False),
        ('unless="$(equals $(var twin) mujoco)"', False),
        ('if="$(and $(not false) $(or false 1))"', True),
    ],
)
def test_condition_decides(tmp_path, condition, expected):
    body = f'<let name="twin" value="mujoco"/><log message="here" {condition}/>'
    assert messages(load(tmp_path, body)) == ["here"] * expected


def test_include_passes_arguments_and_knows_its_own_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner.launch.xml").write_text(
        '<launch><arg name="side"/><log message="$(var side) $(dirname)"/></launch>'
    )
    body = """
    <include file="$(dirname)/sub/inner.launch.xml"><arg name="side" value="left"/></include>
    <log message="$(dirname)"/>"""
    assert messages(load(tmp_path, body)) == [f"left {tmp_path}/sub", str(tmp_path)]


def test_timer_delays_and_sees_final_variables(tmp_path):
    body = """
    <let name="a" value="before"/>
    <timer period="2.5">
      <log message="$(var a)"/><timer period="1"><log message="b"/></timer>
    </timer>
    <let name="a" value="after"/>"""
    steps = load(tmp_path, body).steps
    assert [(step.delay_s, step.action.text) for step in steps] == [(2.5, "after"), (3.5, "b")]


def test_read_arguments_lists_all_and_marks_conditional_ones(tmp_path):
    path = tmp_path / "a.launch.xml"
    path.write_text(
        """<launch>
        <arg name="twin" default="mujoco" description="which"><choice value="mujoco"/></arg>
        <group if="true"><arg name="speed"/></group></launch>"""
    )
    twin, speed = read_arguments(path)
    assert (twin.name, twin.default, twin.description) == ("twin", "mujoco", "which")
    assert (twin.choices, twin.is_conditional) == (("mujoco",), False)
    assert (speed.name, speed.default, speed.is_conditional) == ("speed", None, True)


def test_assignments_are_parsed_and_last_one_counts():
    assert parse_assignments(["a:=1", "b:=x:=y", "a:=2", "c:="]) == {
        "a": "2",
        "b": "x:=y",
        "c": "",
    }
    with pytest.raises(LaunchError, match="'a=1'; expected name:=value"):
        parse_assignments(["a=1"])


# Nodes and executables


def test_node_becomes_the_command_line_of_ros2_launch(tmp_path, package):
    extra = tmp_path / "arm.yaml"
    extra.write_text("/**: {ros__parameters: {gain: 2.0}}")
    process = only(
        load(
            tmp_path,
            f"""
    <push_ros_namespace namespace="left"/>
    <node pkg="cell" exec="arm_node" name="arm" namespace="inner" args="--fast 'a b' $(var x)"
          output="screen" respawn="true" respawn_delay="0.5" respawn_max_retries="3"
          on_exit="shutdown">
      <param name="rate" value="10.0"/>
      <param name="label" value="1.0" type="str"/>
      <param from="{extra}"/>
      <param name="limits"><param name="low" value="-1"/></param>
      <remap from="joint_states" to="states"/>
      <env name="COLOUR" value="red"/>
    </node>""".replace("\n    <push", '\n    <let name="x" value="c d"/><push', 1),
        )
    )
    rate, limits = [word for word in process.command if isinstance(word, ParameterSet)]
    assert process.command == (
        package.executable, "--fast", "a b", "c d", "--ros-args", "-r", "__node:=arm",
        "-r", "__ns:=/left/inner", "--params-file", rate, "--params-file", str(extra),
        "--params-file", limits, "-r", "joint_states:=states",
    )  # fmt: skip
    assert rate.node == "/left/inner/arm"
    assert rate.values == {"rate": 10.0, "label": "1.0"}
    assert limits.values == {"limits.low": -1}
    assert process.label == "arm_node-1"
    assert process.environment == {**ENVIRONMENT, "COLOUR": "red"}
    assert (process.respawn, process.respawn_delay_s, process.respawn_max_retries) == (True, 0.5, 3)
    assert process.ends_launch


@pytest.mark.parametrize(
    ("pushed", "given", "expected"),
    [
        (None, None, None),
        ("", None, "/"),
        ("cell", None, "/cell"),
        ("/cell/", None, "/cell"),
        ("cell", "arm", "/cell/arm"),
        ("cell", "/arm", "/arm"),
        (None, "arm", "/arm"),
    ],
)
def test_namespace_is_joined(tmp_path, package, pushed, given, expected):
    push = "" if pushed is None else f'<push-ros-namespace namespace="{pushed}"/>'
    attribute = "" if given is None else f'namespace="{given}"'
    process = only(load(tmp_path, f'{push}<node pkg="cell" exec="arm_node" {attribute}/>'))
    assert [word for word in process.command if "__ns" in str(word)] == (
        [] if expected is None else [f"__ns:={expected}"]
    )


def test_namespace_ends_with_its_group(tmp_path, package):
    body = """
    <group><push_ros_namespace namespace="a"/><node pkg="cell" exec="arm_node"/></group>
    <node pkg="cell" exec="arm_node"/>"""
    first, second = load(tmp_path, body).processes
    assert "__ns:=/a" in first.command
    assert second.command == (package.executable, "--ros-args")
    assert (first.label, second.label) == ("arm_node-1", "arm_node-2")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('value="10"', 10),
        ('value="10.0"', 10.0),
        ('value="true"', True),
        ('value="mujoco"', "mujoco"),
        ("value=\"'10'\"", "10"),
        ('value=""', ""),
        ('value="[1.0, 2.5]"', [1.0, 2.5]),
        ('value="[a, b]"', ["a", "b"]),
        ('value="$(var number)"', 7),
        ('value="$(var number).5"', 7.5),
        ('value="$(var list)"', ["p", "q"]),
        ('value="[$(var number), 8]"', [7, 8]),
        ('value="$(var number)" type="str"', "7"),
        ('value="$(var number)" type="float"', 7.0),
        ('value="1" type="float"', 1.0),
        ('value="1" type="bool"', True),
        ('value="[1, 2]" type="list_of_int"', [1, 2]),
    ],
)
def test_parameter_is_typed_as_ros2_launch_does(tmp_path, package, attributes, expected):
    body = f"""<let name="number" value="7"/><let name="list" value="[p, q]"/>
    <node pkg="cell" exec="arm_node"><param name="p" {attributes}/></node>"""
    value = parameters(only(load(tmp_path, body)))["p"]
    assert value == expected
    assert type(value) is type(expected)


def test_parameter_file_holds_the_values(tmp_path, package):
    body = '<node pkg="cell" exec="arm_node"><param name="a.b" value="1.0" type="str"/></node>'
    command = write_parameter_files(only(load(tmp_path, body)), tmp_path)
    written = yaml.safe_load(Path(command[command.index("--params-file") + 1]).read_text())
    assert written == {"/**": {"ros__parameters": {"a.b": "1.0"}}}


def test_executable_is_split_before_substitutions(tmp_path):
    body = '<let name="x" value="a b"/><executable cmd="echo \'1 2\' $(var x)/$(var x) 3" cwd="/"/>'
    process = only(load(tmp_path, body))
    assert process.command == ("echo", "1 2", "a b/a b", "3")
    assert (process.label, process.cwd, process.respawn) == ("echo-1", "/", False)


def test_launch_prefix_stands_first(tmp_path, package):
    process = only(load(tmp_path, '<node pkg="cell" exec="arm_node" launch-prefix="nice -n 5"/>'))
    assert process.command[:4] == ("nice", "-n", "5", package.executable)


# Errors name file and line; nothing is half-read


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<arg name='a'/>", "the argument 'a' is required; give it as a:=VALUE"),
        (
            "<arg name='a' default='x'><choice value='y'/><choice value='z'/></arg>",
            "the argument 'a' is 'x'; expected one of y, z",
        ),
        ("<nodes/>", "unsupported tag <nodes>"),
        ("<group><composable_node/></group>", "unsupported tag <composable_node>"),
        ("<log message='a' colour='red'/>", "unsupported attribute 'colour' in <log>"),
        ("<log/>", "<log> needs the attribute 'message'"),
        ("<log message='$(var b)'/>", "variable 'b' does not exist"),
        ("<log message='$(env NOPE)'/>", "environment variable 'NOPE' is not set"),
        ("<log message='$(optenv NOPE)'/>", r"unknown substitution \$\(optenv"),
        ("<log message='$(dirname'/>", r"\$\(dirname ...\) in '\$\(dirname' is not closed"),
        ("<log message='$(eval 1 + 1)'/>", "takes 1 argument"),
        ("<log message='a' if='maybe'/>", "'maybe' is not a condition"),
        ("<log message='a' if='1' unless='0'/>", "both 'if' and 'unless'"),
        ("<node pkg='nowhere' exec='x'/>", "package 'nowhere' was not found"),
        ("<node pkg='cell' exec='leg_node'/>", "package 'cell' has no executable 'leg_node'"),
        ("<node pkg='cell' exec='arm_node' name='a b'/>", "'a b' is not a ROS node name"),
        ("<node pkg='cell' exec='arm_node' namespace='1'/>", "'/1' is not a ROS namespace"),
        ("<node pkg='cell' exec='arm_node' output='tty'/>", "output is 'tty'"),
        ("<node pkg='cell' exec='arm_node' respawn='often'/>", "respawn.* is 'often'"),
        ("<node pkg='cell' exec='arm_node' respawn_delay='-1'/>", "respawn_delay is '-1'"),
        ("<node pkg='cell' exec='arm_node' respawn_max_retries='x'/>", "expected an integer"),
        ("<node pkg='cell' exec='arm_node' on_exit='respawn'/>", "on_exit is 'respawn'"),
        ("<executable cmd='no_such_program'/>", "executable 'no_such_program' was not found"),
        ("<executable cmd='echo &quot;'/>", "cannot be split"),
        ("<include file='$(dirname)/none.launch.xml'/>", "none.launch.xml' does not exist"),
        ("<timer period='soon'/>", "period is 'soon'"),
        ("stray", "unexpected text 'stray'"),
        ("<log", "not well-formed XML"),
    ],
)
def test_error_names_file_and_line(tmp_path, package, body, complaint):
    with pytest.raises(LaunchError, match=complaint) as caught:
        load(tmp_path, f"<log message='fine'/>\n{body}")
    assert str(caught.value).startswith(f"{tmp_path}/cell.launch.xml:")
    assert caught.value.line in (3, 4)


@pytest.mark.parametrize(
    ("param", "complaint"),
    [
        ("<param name='p'/>", "needs either 'value'"),
        ("<param name='p' value='{a: 1}'/>", "parameter 'p'.* is a dict in YAML"),
        ("<param name='p' value='[1, a]'/>", None),
        ("<param name='p' value='[1, 2.5]'/>", "mixes float, int"),
        ("<param name='p' value='x' type='int'/>", "'x' is not of type int"),
        ("<param name='p' value='x' type='integer'/>", "unknown type 'integer'"),
        ("<param from='/no/file.yaml'/>", "'/no/file.yaml' does not exist"),
    ],
)
def test_bad_parameter_is_refused(tmp_path, package, param, complaint):
    body = f"<node pkg='cell' exec='arm_node'>\n{param}</node>"
    with pytest.raises(LaunchError, match=complaint) as caught:
        load(tmp_path, body)
    assert caught.value.line == 3


def test_unknown_argument_is_refused(tmp_path):
    with pytest.raises(LaunchError, match=r"unknown argument 'epsiodes'; known: episodes"):
        load(tmp_path, '<arg name="episodes" default="1"/>', epsiodes="3")


def test_error_in_an_included_file_names_that_file(tmp_path):
    inner = tmp_path / "inner.launch.xml"
    inner.write_text("<launch>\n\n<bad/></launch>")
    with pytest.raises(LaunchError, match="unsupported tag <bad>") as caught:
        load(tmp_path, '<include file="$(dirname)/inner.launch.xml"/>')
    assert (caught.value.path, caught.value.line) == (inner, 3)


def test_a_file_that_includes_itself_is_refused(tmp_path):
    with pytest.raises(LaunchError, match="levels deep"):
        load(tmp_path, '<include file="$(filename)"/>')
