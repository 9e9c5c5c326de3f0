# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

setup(
    name="twinloop_sim",
    version="0.1.0",
    packages=find_packages(include=["twinloop_sim", "twinloop_sim.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/twinloop_sim"]),
        ("share/twinloop_sim", ["package.xml"]),
    ],
    python_requires=">=3.11",
    zip_safe=True,
    maintainer="twinloop maintainers",
    maintainer_email="twinloop@users.noreply.github.com",
    description="Simulated twins of the robots that twinloop drives.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "twin_node = twinloop_sim.nodes.twin:main",
            "bin_node = twinloop_sim.nodes.bin:main",
            "twin_cameras_node = twinloop_sim.nodes.twin_cameras:main",
        ]
    },
)
