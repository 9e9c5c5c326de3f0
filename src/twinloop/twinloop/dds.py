# SPDX-License-Identifier: Apache-2.0
"""A DDS domain of one's own, and a round trip in it between two processes.

Run as `python -m twinloop.dds`, it prints the round trip as JSON; what may hang or crash in it,
hangs or crashes there.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twinloop.paths import share

# Domains whose ports lie below the range from which Linux takes ports for other programs.
_LAST_DOMAIN = 101
_FIRST_PORT, _PORTS_PER_DOMAIN = 7400, 250
# Participants of a domain that are looked for; each listens on a port of its own.
_PARTICIPANTS = 20
_PATIENCE_S = 20.0
_TRIPS = 50
_RANGE, _PEERS = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS"
# Where Fast DDS reads profiles: of version 2 and of version 3.
_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Open files whose locks say that a domain is taken; they end with this process.
_taken: dict[int, int] = {}


def own_domain() -> dict[str, str]:
    """Return environment variables for a graph that meets no other: a random domain, this machine.

    A domain that is set already is kept.
    """
    chosen = os.environ.get("ROS_DOMAIN_ID") or str(take_domain())
    return {"ROS_DOMAIN_ID": chosen, **loopback()}


def loopback() -> dict[str, str]:
    """Return environment variables that keep DDS off every interface but loopback.

    Fast DDS alone can be kept from listening elsewhere; other middlewares, and one that was given
    profiles of its own, are only told to look for nobody elsewhere.

    Raises:
        FileNotFoundError: the profile is not installed.
    """
    profile = str(share("config", "dds", "loopback.xml"))
    given = {os.environ.get(name, profile) for name in _PROFILES}
    middleware = os.environ.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    if given != {profile} or not middleware.startswith("rmw_fastrtps"):
        return {_RANGE: "LOCALHOST"}
    return {_RANGE: "SYSTEM_DEFAULT", **dict.fromkeys(_PROFILES, profile)}


def stay_on_this_machine() -> None:
    """Keep this process, and those it starts, on loopback, unless its environment says where DDS
    is to be; raises FileNotFoundError as `loopback` does."""
    if os.environ.get(_RANGE, "LOCALHOST") == "LOCALHOST" and not os.environ.get(_PEERS):
        os.environ.update(loopback())


def take_domain() -> int:
    """Return a random domain that nobody is in, as far as can be seen.

    It is this process's own among those that ask here, until `leave_domain` or its end.
    """
    domains = random.SystemRandom().sample(range(1, _LAST_DOMAIN + 1), _LAST_DOMAIN)
    for domain in domains:
        if _lock(domain):
            if not _has_participant(domain):
                return domain
            leave_domain(domain)
    return domains[0]


def leave_domain(domain: int) -> None:
    """Leave a domain to others that `take_domain` returned."""
    lock = _taken.pop(domain, None)
    if lock is not None:
        os.close(lock)


def _lock(domain: int) -> bool:
    """Take the lock of a domain on this machine; False where another has it."""
    path = Path(tempfile.gettempdir()) / f"twinloop-domain-{domain}.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    _taken[domain] = lock
    return True


def _has_participant(domain: int) -> bool:
    # The first one may have gone while others stay, so each one's port is tried: where it listens
    # for others (RTPS 2.5, 9.6.2.3).
    first = _FIRST_PORT + _PORTS_PER_DOMAIN * domain + 10
    return any(_is_taken(first + 2 * participant) for participant in range(_PARTICIPANTS))


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def round_trip() -> dict[str, Any]:
    """Send texts to a second process that sends them back.

    Returns:
        `rmw`, the middleware's name, and `median_ms`, the time of a round trip; or `problem`.
    """
    import rclpy
    from std_msgs.msg import String

    echo = subprocess.Popen([sys.executable, "-m", "twinloop.dds", "echo"])
    rclpy.init()
    try:
        node = rclpy.create_node("doctor_ping")
        received: list[str] = []

        def receive(message: Any) -> None:
            received.append(message.data)

        node.create_subscription(String, "doctor_pong", receive, 10)
        publisher = node.create_publisher(String, "doctor_ping", 10)
        deadline = time.monotonic() + _PATIENCE_S
        trips: list[float] = []
        while len(trips) < _TRIPS:
            sent = time.monotonic()
            publisher.publish(String(data=str(len(trips))))
            # The first ones are lost while the two processes find each other.
            while time.monotonic() < sent + 0.5 and str(len(trips)) not in received:
                rclpy.spin_once(node, timeout_sec=0.05)
            if str(len(trips)) in received:
                trips.append(1e3 * (time.monotonic() - sent))
            elif time.monotonic() > deadline:
                return {"problem": f"{len(trips)} of {_TRIPS} messages in {_PATIENCE_S:g} s"}
        rmw = rclpy.get_rmw_implementation_identifier()
        return {"rmw": rmw, "median_ms": statistics.median(trips)}
    finally:
        rclpy.try_shutdown()
        echo.kill()
        echo.wait()


def _echo() -> None:
    import rclpy
    from std_msgs.msg import String

    rclpy.init()
    node = rclpy.create_node("doctor_echo")
    publisher = node.create_publisher(String, "doctor_pong", 10)
    node.create_subscription(String, "doctor_ping", publisher.publish, 10)
    # Its parent kills it; should the parent die first, this ends on its own.
    deadline = time.monotonic() + 3 * _PATIENCE_S
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.5)


if __name__ == "__main__":
    if sys.argv[1:] == ["echo"]:
        _echo()
    else:
        print(json.dumps(round_trip()))
