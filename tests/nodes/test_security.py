# SPDX-License-Identifier: Apache-2.0
"""DDS security where the middleware has none: no node starts without what was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
from twinloop.dds import leave_domain, take_domain

FILES = (
    *("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem"),
    *("governance.p7s", "permissions.p7s"),
)


def start(keystore: Path, strategy: str) -> subprocess.CompletedProcess[str]:
    domain = take_domain()
    code = "from twinloop.nodes.episode import main; main()"
    try:
        return subprocess.run(
            [sys.executable, "-c", code, "--ros-args", "--enclave", "/twinloop/planners"],
            env=os.environ
            | {
                "ROS_DOMAIN_ID": str(domain),
                "ROS_SECURITY_ENABLE": "true",
                "ROS_SECURITY_STRATEGY": strategy,
                "ROS_SECURITY_KEYSTORE": str(keystore),
            },
            capture_output=True,
            text=True,
            timeout=60.0,
        )
    finally:
        leave_domain(domain)


@pytest.mark.parametrize("strategy", ["Enforce", "Permissive"])
def test_security_that_is_not_there_stops_a_node(strategy: str, tmp_path: Path) -> None:
    if "fastrtps" not in rclpy.get_rmw_implementation_identifier():
        pytest.skip("another middleware")
    folder = tmp_path / "enclaves" / "twinloop" / "planners"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("nothing that anybody could verify\n")
    done = start(tmp_path, strategy)
    assert done.returncode == 2
    assert "cannot start: " in done.stderr
    assert "security" in done.stderr


def test_enforced_security_without_a_keystore_stops_a_node(tmp_path: Path) -> None:
    done = start(tmp_path / "none", "Enforce")
    assert done.returncode == 2
    assert "SECURITY ERROR" in done.stderr
