"""A server with keys, and clients that have them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.measure.servers import free_port
from service.access.keys import Key
from tests.integration.client import TIMEOUT_SECONDS, Client
from tests.integration.servers import Server, serving

SECRETS = {name: f"sf-{name}" for name in ("alice", "bob", "meg", "root")}
ROLES = {
    "alice": ["inference", "vectors"],
    "bob": ["inference", "vectors"],
    "meg": ["metrics"],
    "root": ["admin"],
}
OF_VLLM = "a key of vLLM's"
ORIGIN = "http://app.example"
"""An allowed origin."""
RECEIVE_SECONDS = 5
SEND_SECONDS = 2


@dataclass(frozen=True)
class Guarded:
    """One server, its second port, and the file of its keys."""

    server: Server
    metrics_url: str
    keys: Path

    def client(self, name: str | None) -> Client:
        """Return a client with the key of that name, or with none; close its ``http``."""
        client = Client(self.server)
        if name is not None:
            client.http.headers["authorization"] = f"Bearer {SECRETS[name]}"
        return client

    def raw(self, request: bytes) -> bytes:
        """Return the answer to bytes as they are, whose end is the connection's."""
        url = httpx.URL(self.server.url)
        with socket.create_connection((url.host, url.port), TIMEOUT_SECONDS) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def serving_guarded(folder: Path) -> Iterator[Guarded]:
    """Serve with keys in a file, one of vLLM's, and metrics on a port of their own."""
    keys = folder / "keys"
    keys.write_text(
        "".join(f"{Key.of(name, ROLES[name], SECRETS[name]).to_line()}\n" for name in SECRETS)
    )
    port = free_port()
    flags = (
        *("--max-model-len", "1024", "--max-num-seqs", "16", "--api-keys-file", str(keys)),
        *("--api-key", OF_VLLM, "--metrics-port", str(port)),
        *("--allowed-origins", json.dumps([ORIGIN])),
        *("--block-size", "32", "--enable-prompt-tokens-details"),
        *("--receive-timeout-seconds", str(RECEIVE_SECONDS)),
        *("--send-timeout-seconds", str(SEND_SECONDS)),
    )
    with serving(folder, flags) as server:
        yield Guarded(server, f"http://127.0.0.1:{port}", keys)
