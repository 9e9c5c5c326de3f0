# SPDX-License-Identifier: Apache-2.0
"""The doctor: on this machine, and where something is missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from twinloop.cli.main import main
from twinloop.dds import (
    leave_domain,
    loopback,
    own_domain,
    stay_on_this_machine,
    take_domain,
)
from twinloop.doctor import Check
from twinloop.learning.model_file import Candidate, write_model
from twinloop.models.ensemble import Ensemble, EnsembleConfig

from twinloop import contract, dds, doctor


def model(folder: Path) -> Path:
    agreed = contract.load("baoding")
    config = EnsembleConfig(
        observation_size=agreed.observation_size, action_size=agreed.action_size, hidden=(4,)
    )
    folder.mkdir()
    write_model(folder, Candidate(Ensemble(config, 0), agreed))
    return folder


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *words])
    return int(ended.value.code or 0)


def test_this_machine_has_what_the_tests_need(tmp_path: Path) -> None:
    checks = doctor.examine(model(tmp_path / "model"))
    assert doctor.is_healthy(checks), [check for check in checks if check.status == "missing"]
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    assert found["ROS 2"].found.startswith("jazzy from wheels, rmw_") or "installation" in (
        found["ROS 2"].found
    )
    assert "round trip" in found["DDS"].found
    assert found["torch"].found[0].isdigit()
    assert all(check.advice for check in checks if check.status != "ok")


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("missing", 1)])
def test_the_exit_code_tells_whether_something_needed_is_missing(
    status: doctor.Status, code: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    checks = [Check("fire", "ok", "hot"), Check("water", status, "[red]dry[/]", "fetch some")]
    monkeypatch.setattr("twinloop.cli.doctor.examine", lambda: checks)
    assert call() == code
    shown = capsys.readouterr().out
    assert "[red]dry[/]" in shown
    assert "fetch some" in shown
    assert call("--json") == code
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is (code == 0)
    assert report["checks"][1] == {
        "name": "water",
        "status": status,
        "found": "[red]dry[/]",
        "advice": "fetch some",
    }


def test_a_broken_model_is_missing_and_the_reason_is_told(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "weights.safetensors").write_bytes(b"short")
    check = doctor._model(folder)
    assert check.status == "missing"
    assert "weights.safetensors: is 5 bytes long" in check.found


def test_a_library_that_crashes_does_not_take_the_doctor_along(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "crashing.py").write_text("import os; os.abort()")
    (tmp_path / "failing.py").write_text("import does_not_exist")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    check = doctor._library("crashing", "nothing")
    assert (check.status, check.found) == ("missing", "ended with status -6")
    check = doctor._library("failing", "nothing")
    assert check.found == "ModuleNotFoundError: No module named 'does_not_exist'"


def test_a_full_disk_is_missing_and_a_nearly_full_one_a_warning(monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free_gb, status in ((0.1, "missing"), (1.0, "warning"), (100.0, "ok")):
        monkeypatch.setattr(
            doctor.shutil, "disk_usage", lambda _, free=free_gb: usage(0, 0, free * 1e9)
        )
        assert doctor._disk().status == status


def test_packages_are_compared_with_the_lock() -> None:
    lines = ["# a comment", "pydantic==0.0.1", "not-on-this-planet==1.0", "torch==2.13.0", ""]
    different = list(doctor._differences(lines))
    assert len(different) == 2
    assert different[0].startswith("pydantic is ")
    assert different[0].endswith(" instead of 0.0.1")
    assert different[1] == "not-on-this-planet is absent"


def test_a_domain_is_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    assert 1 <= int(own_domain()["ROS_DOMAIN_ID"]) <= 101
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    assert own_domain() == {"ROS_DOMAIN_ID": "42", **loopback()}


def test_dds_stays_on_loopback_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
        patch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
        patch.setattr(os, "environ", dict(os.environ))
        stay_on_this_machine()
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
        assert Path(os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"]).name == "loopback.xml"
        for name, value in (
            ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET"),
            ("ROS_STATIC_PEERS", "192.0.2.1"),
        ):
            chosen = {name: value}
            patch.setattr(os, "environ", chosen)
            stay_on_this_machine()
            assert os.environ == {name: value}
        # What cannot be bound is at least told to look for nobody.
        for name, value in (
            ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp"),
            ("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml"),
        ):
            patch.setattr(os, "environ", {name: value})
            assert loopback() == {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def test_a_domain_that_is_taken_is_given_to_nobody_else() -> None:
    taken = [take_domain() for _ in range(5)]
    code = "from twinloop.dds import take_domain; print(*(take_domain() for _ in range(40)))"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        others = {int(word) for word in done.stdout.split()}
        assert len(others) == 40
        assert not others & set(taken)
    finally:
        for domain in taken:
            leave_domain(domain)


@pytest.mark.parametrize("participant", [0, 1, 7])
def test_a_domain_with_any_participant_is_given_to_nobody(
    participant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may be gone: a node that outlives the robot's is still heard."""
    full, free = take_domain(), take_domain()
    for domain in (full, free):
        leave_domain(domain)
    monkeypatch.setattr(dds.random.SystemRandom, "sample", lambda *_: [full, free])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 7400 + 250 * full + 10 + 2 * participant))
        taken = take_domain()
    leave_domain(taken)
    assert taken == free


def test_where_all_domains_are_taken_a_random_one_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dds, "_lock", lambda domain: False)
    assert 1 <= take_domain() <= 101
