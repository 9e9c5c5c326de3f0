# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

NODES = (
    "planner",
    "policy",
    "recorder",
    "learner",
    "episode",
    "supervisor",
    "stereo_camera",
    "realsense",
    "ball_tracker",
    "grasp_planner",
    "picker",
    "heap_segmenter",
    "robot_state",
    "markers",
    "web",
    "joint_driver",
    "dynamixel",
    "franka",
    "shadow_hand",
    "joystick",
    "teleop",
    "steering",
    "reset",
)

setup(
    name="twinloop",
    version="0.1.0",
    packages=find_packages(include=["twinloop", "twinloop.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/twinloop"]),
        ("share/twinloop", ["package.xml"]),
    ],
    python_requires=">=3.11",
    extras_require={
        "lerobot": ["pyarrow"],
        "ray": ["ray>=2.40"],
        "tensorboard": ["tensorboard"],
        "unitree": ["unitree-legged-sdk"],
    },
    zip_safe=True,
    maintainer="twinloop maintainers",
    maintainer_email="twinloop@users.noreply.github.com",
    description="Robots that go on learning while they work.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "twinloop = twinloop.cli.main:main",
            *(f"{node}_node = twinloop.nodes.{node}:main" for node in NODES),
        ],
    },
)
