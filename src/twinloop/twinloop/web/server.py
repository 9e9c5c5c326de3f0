# SPDX-License-Identifier: Apache-2.0
"""A viser server that keeps to this machine."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import viser

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_PORTS_TRIED = 20
_REFUSED = 1008  # websocket close code: policy


class PortTaken(OSError):
    """None of the ports that were tried is free."""


def free_port(port: int, tried: int = _PORTS_TRIED) -> int:
    """Return the first port of a few that nobody listens on.

    Raises:
        PortTaken: all are in use; the message names them.
    """
    for candidate in range(port, min(port + tried, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except OSError:
                continue
            return candidate
    raise PortTaken(f"ports {port} to {min(port + tried, 65536) - 1} of {HOST} are all in use")


class LocalServer(viser.ViserServer):
    """Binds loopback, never opens a tunnel, and refuses pages of other sites.

    A page of another site that is open in the same browser could otherwise connect to loopback and
    press this page's buttons.

    Raises:
        PortTaken: no port is free.
    """

    def __init__(self, port: int, label: str) -> None:
        super().__init__(host=HOST, port=free_port(port), label=label, verbose=False)
        connections = self._websock_server._live_connections

        async def admit(client: Any) -> None:
            connection: Any = connections[client.client_id]
            headers = connection.request.headers
            if not is_own(headers.get("Origin"), headers.get("Host")):
                await connection.close(_REFUSED, "this page is for its own site alone")

        self._websock_server._client_connect_cb.insert(0, admit)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.get_port()}"

    @property
    def viewers(self) -> int:
        """Windows that are connected, those included that have not drawn yet."""
        return len(self._websock_server._client_state_from_id)

    def request_share_url(self, verbose: bool = True) -> None:
        """Do nothing: viser would publish the page through a server of its makers."""


def is_own(origin: str | None, host: str | None) -> bool:
    """Whether a websocket's request comes from this server's own page.

    Without an origin it is no browser, which protects its user by telling it.
    """
    if urlsplit(f"//{host or ''}").hostname not in _NAMES:
        return False
    return origin is None or urlsplit(origin).netloc == host
