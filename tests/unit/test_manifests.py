# SPDX-License-Identifier: Apache-2.0
"""Manifests, lock and Dockerfile name everything that the sources use."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from catkin_pkg.package import Package, parse_package
from catkin_pkg.topological_order import topological_order_packages

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    path.parent.name: path.parent
    for folder in ("src", "sim")
    for path in sorted((ROOT / folder).glob("*/package.xml"))
}
PYTHON_PACKAGES = ("twinloop", "twinloop_sim")

# Modules and their rosdep keys, looked up in rosdep's base.yaml and python.yaml for Ubuntu 24.04.
ROSDEP_KEYS = {
    "OpenGL": "python3-opengl",
    "PIL": "python3-pil",
    "cv2": "python3-opencv",
    "hypothesis": "python3-hypothesis",
    "matplotlib": "python3-matplotlib",
    "mujoco": "python3-mujoco-pip",
    "numpy": "python3-numpy",
    "psutil": "python3-psutil",
    "pybullet": "python3-pybullet-pip",
    "pybullet_data": "python3-pybullet-pip",
    "pybullet_utils": "python3-pybullet-pip",
    "pydantic": "python3-pydantic",
    "pytest": "python3-pytest",
    "pytest_timeout": "python3-pytest-timeout",
    "rich": "python3-rich",
    "rosbags": "python3-rosbags-pip",
    "serial": "python3-serial",
    "torch": "python3-torch",
    "typer": "python3-typer",
    "websockets": "python3-websockets",
    "yaml": "python3-yaml",
}
# Modules without a rosdep key: pip installs them, on a ROS 2 installation too.
BY_PIP = {
    *("coal", "dynamixel_sdk", "lz4", "mcap", "ompl", "pinocchio", "safetensors", "setuptools"),
    *("playwright", "pylibfranka", "trimesh", "viser", "zstandard"),
    *("gymnasium", "onnx", "onnxruntime", "stable_baselines3"),
}
# The environment of the wheels, not part of a ROS 2 installation's manifests.
BUILD_TOOLS = {"catkin_pkg"}
# Looked for by twinloop only when a twin is asked for. Declared, it would be a circle: the engines
# come with twinloop_sim, and twinloop_bringup names both.
LAZY = {"twinloop": {"twinloop_sim", "mujoco", "pybullet"}}

MESSAGE_TYPE = re.compile(r"([a-z][a-z0-9_]*)/(?:(?:msg|srv|action)/)?[A-Z][A-Za-z0-9]*")


def manifest(name: str) -> Package:
    return parse_package(str(PACKAGES[name]))


def declared(package: Package) -> set[str]:
    groups = (
        package.build_depends,
        package.buildtool_depends,
        package.exec_depends,
        package.test_depends,
    )
    return {dependency.name for group in groups for dependency in group}


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Top-level names of everything imported from outside the package.

    What is imported where another import failed is a choice, and does not count.
    """
    choices = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in choices:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


def named_message_packages(tree: ast.AST) -> Iterator[str]:
    """Packages of message types that are named by a string, as contracts and bag writers do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = MESSAGE_TYPE.fullmatch(node.value)
            if match and "/msg/" in node.value:
                yield match.group(1)


def undeclared(
    paths: list[Path], own: set[str], known: set[str], *, by_name: bool = True
) -> list[str]:
    """One line for each file that needs a package which is neither known nor its own.

    `by_name`: packages count whose message types are named by a string.
    """
    problems = []
    for path in paths:
        tree = ast.parse(path.read_text())
        wanted = {*imports(tree), *(named_message_packages(tree) if by_name else ())}
        for name in sorted(wanted - own - BY_PIP - set(sys.stdlib_module_names)):
            key = ROSDEP_KEYS.get(name, name)
            if key not in known:
                problems.append(f"{path.name} needs {name}, and no manifest declares {key}")
    return problems


def requirements(path: Path) -> dict[str, str]:
    """Distribution names and their version specifiers."""
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", line) for line in lines if line]
    return {pair[1].lower().replace("_", "-"): pair[2] for pair in pairs if pair}


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_manifest_is_valid_and_free_of_warnings(name: str) -> None:
    warnings: list[str] = []
    package = parse_package(str(PACKAGES[name]), warnings=warnings)
    package.validate(warnings=warnings)
    assert warnings == []
    assert package.name == name
    assert package.licenses == ["Apache-2.0"]


def test_manifests_and_setup_files_carry_one_version() -> None:
    versions = {manifest(name).version for name in PACKAGES}
    for name in PYTHON_PACKAGES:
        text = (PACKAGES[name] / "setup.py").read_text()
        versions.add(re.search(r'version="([^"]+)"', text)[1])
    assert len(versions) == 1


def test_packages_can_be_ordered_for_a_build() -> None:
    ordered = topological_order_packages(
        {str(path): manifest(name) for name, path in PACKAGES.items()}
    )
    assert all(path is not None for path, _ in ordered), f"circle: {ordered}"
    assert {package.name for _, package in ordered} == set(PACKAGES)


@pytest.mark.parametrize("name", PYTHON_PACKAGES)
def test_every_import_is_declared(name: str) -> None:
    own = {name, *LAZY.get(name, set())}
    assert undeclared(sources(PACKAGES[name]), own, declared(manifest(name))) == []


def compared_with() -> set[str]:
    """Modules that benchmarks alone use, and tell how to install."""
    return {
        name.replace("-", "_") for name in requirements(ROOT / "benchmarks" / "requirements.txt")
    }


def test_every_import_of_tests_and_benchmarks_is_declared() -> None:
    folders = [ROOT / "tests", ROOT / "benchmarks", ROOT / "scripts"]
    paths = sources(*folders)
    own = {path.stem for path in paths} | {path.parent.name for path in paths}
    known = set().union(*(declared(manifest(name)) for name in PACKAGES))
    own |= set(PACKAGES) | BUILD_TOOLS | compared_with()
    # Tests name types that are not there, to see them refused.
    assert undeclared(paths, own, known, by_name=False) == []


def test_an_import_without_a_dependency_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('def f():\n    from scipy import linalg\n\nTYPE = "vision_msgs/msg/Pose2D"\n')
    problems = undeclared([path], {"twinloop"}, declared(manifest("twinloop")))
    assert [problem.split(",")[0] for problem in problems] == [
        "module.py needs scipy",
        "module.py needs vision_msgs",
    ]


@pytest.mark.parametrize("name", sorted(LAZY))
def test_lazy_imports_stand_inside_functions(name: str) -> None:
    at_the_top = [
        path.name
        for path in sources(PACKAGES[name])
        for node in ast.parse(path.read_text()).body
        if LAZY[name] & set(imports(node))
        and not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)
    ]
    assert at_the_top == []


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_keys_of_python_packages_are_looked_up_ones(name: str) -> None:
    keys = {key for key in declared(manifest(name)) if key.startswith("python")}
    assert keys <= set(ROSDEP_KEYS.values())


def test_interfaces_declare_the_packages_of_their_fields() -> None:
    folder = PACKAGES["twinloop_interfaces"]
    known = declared(manifest("twinloop_interfaces"))
    for path in sorted(folder.glob("*/*.*")):
        fields = [line.partition("#")[0].split() for line in path.read_text().splitlines()]
        types = [MESSAGE_TYPE.match(field[0]) for field in fields if field]
        used = {match[1] for match in types if match}
        assert used <= known, f"{path.name} uses {used - known}"
    found = re.findall(r"find_package\((\w+)", (folder / "CMakeLists.txt").read_text())
    assert set(found) <= known


def test_launch_files_start_declared_packages_only() -> None:
    known = declared(manifest("twinloop_bringup")) | {"twinloop_bringup"}
    for path in sorted((ROOT / "launch").glob("*.launch.xml")):
        text = path.read_text()
        used = set(re.findall(r'pkg="(\w+)"', text)) | set(
            re.findall(r"find-pkg-share (\w+)", text)
        )
        assert used <= known, f"{path.name} uses {used - known}"


def test_lock_pins_what_is_asked_for_and_what_is_imported() -> None:
    lock = requirements(ROOT / "requirements.lock")
    assert all(re.fullmatch(r"==[\w.]+", version) for version in lock.values())
    assert set(requirements(ROOT / "requirements.in")) <= set(lock)
    tops = [ROOT / name for name in ("src", "sim", "tests", "benchmarks", "scripts")]
    paths = sources(*tops)
    own = {path.stem for path in paths} | {path.parent.name for path in paths} | set(PACKAGES)
    own |= {path.parent.name for path in ROOT.glob("wheels/*/package.xml")}
    used = set().union(*(set(imports(ast.parse(path.read_text()))) for path in paths))
    names = {
        "OpenGL": "pyopengl",
        "PIL": "pillow",
        "cv2": "opencv-python-headless",
        "pinocchio": "pin",
        "pybullet_data": "pybullet",
        "pybullet_utils": "pybullet",
        "serial": "pyserial",
        "yaml": "pyyaml",
    }
    own |= compared_with()
    for module in sorted(used - own - set(sys.stdlib_module_names)):
        name = names.get(module, module).replace("_", "-")
        assert {name, f"ros-{name}"} & set(lock), f"{module} is imported and not in the lock"


def test_container_takes_by_pip_what_rosdep_lacks_in_the_versions_of_the_lock() -> None:
    lock = requirements(ROOT / "requirements.lock")
    pinned = requirements(ROOT / "docker" / "requirements.txt")
    assert pinned.pop("numpy") == "<2"
    assert pinned == {name: lock[name] for name in pinned}
    skipped = re.search(r'--skip-keys "([^"]*)"', (ROOT / "docker" / "Dockerfile").read_text())[1]
    modules = {module for module, key in ROSDEP_KEYS.items() if key in skipped.split()}
    by_pip_key = {"mujoco", "pybullet", "rosbags"}  # rosdep alone would take the newest
    by_pip = {"pin" if m == "pinocchio" else m.replace("_", "-") for m in BY_PIP}
    assert by_pip | modules | by_pip_key <= set(pinned)


def test_container_builds_the_workspace_with_gazebo_moveit_and_rviz() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    assert re.search(r"^FROM ros:jazzy$", text, re.MULTILINE)
    words = set(text.split())
    assert {"ros-jazzy-ros-gz", "ros-jazzy-moveit", "ros-jazzy-moveit-py", "ros-jazzy-rviz2"} <= (
        words
    )
    assert "rosdep install --from-paths src sim --ignore-src" in text
    assert "colcon build" in text
    for name, path in PACKAGES.items():
        file = f"{path.relative_to(ROOT)}/package.xml"
        assert f"COPY {file} {file}" in text, f"the Dockerfile does not copy {name}'s manifest"
    for copied in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (ROOT / copied).exists(), f"the Dockerfile copies {copied}, which is not there"


@pytest.mark.parametrize(
    "document",
    ["README.md", *(str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("do*/**/*.md")))],
)
def test_documents_name_files_that_are_there(document: str) -> None:
    path = ROOT / document
    text = path.read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    tops = {entry.name for entry in ROOT.iterdir()} - {"runs", "install", "build", "log", ".venv"}
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)
    known = [name for name in named if name.partition("/")[0] in tops]
    assert [name for name in known if not (ROOT / name).exists()] == []
