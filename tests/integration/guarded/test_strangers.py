"""What somebody without a key may try, on a server that asks for one.

``--full`` also writes docs/faults/strangers.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx
import pytest

from tests.faults.report import Report
from tests.integration.guarded.server import SECRETS, Guarded
from tests.integration.servers import REPOSITORY

pytestmark = pytest.mark.xdist_group("guarded")

TABLE = REPOSITORY / "docs" / "faults" / "strangers.md"
TOLD = """\
`make faults` sends all this to a real server with keys, and wrote this table; every run of the
tests sends it too. "Every route" is every path and method of the OpenAPI document, and OPTIONS.
"""
CREDENTIALS: Mapping[str, Mapping[str, str]] = {
    "no key": {},
    "an unknown key": {"authorization": "Bearer sf-wrong"},
    "an empty key": {"authorization": "Bearer"},
    "a key's name": {"authorization": "Bearer alice"},
    "a key of half its length": {"authorization": f"Bearer {SECRETS['alice'][:4]}"},
    "a key and one letter more": {"authorization": f"Bearer {SECRETS['alice']}x"},
    "a key in capitals": {"authorization": f"Bearer {SECRETS['alice'].upper()}"},
    "a key as a user's password": {"authorization": "Basic YWxpY2U6c2YtYWxpY2U="},
    "an unknown key as `x-api-key`": {"x-api-key": "sf-wrong"},
    "a key as a cookie": {"cookie": f"authorization=Bearer {SECRETS['alice']}"},
}
"""What is sent in place of a key, in words and as headers."""
EVERYWHERE = "401 on every route but `/health`"
TARGETS = (
    *("//v1/models", "/v1/../metrics", "/health/../metrics", "/health/..%2fmetrics"),
    *("/%76%31/models", "/health%2f..%2fv1/models", "/health;/v1/models", "/HEALTH"),
    *("/health//", "/./health", "http://localhost/v1/models", "*", "/health\\..\\metrics"),
    *("/v1/models?api_key=sf-alice", "/v1/models#/health", "/v1/models%00/health", "/v1/models/"),
)
OF_THE_PAGE = ("/playground/../v1/models", "/playground/%2e%2e/metrics", "/playground//v1/models")
"""Below a folder whose files ask for no key."""
HOSTS = ("localhost", "localhost/health", "/health", "health", "")
REFUSALS = {
    **dict.fromkeys(TARGETS, "400 or 401, whatever the `Host`"),
    **dict.fromkeys(OF_THE_PAGE, "404, whatever the `Host`"),
}


def test_every_route_asks_for_a_key(
    guarded: Guarded, full: bool, subtests: pytest.Subtests
) -> None:
    with guarded.client("root").http as http:
        paths = http.get("/openapi.json").json()["paths"]
    assert len(paths) > 20
    report = Report("Strangers, and what they are told", TOLD, "sent")
    with guarded.client(None).http as http:
        for words, headers in CREDENTIALS.items():
            with subtests.test(words), report.row(words, EVERYWHERE) as row:
                told = {
                    (method, path): http.request(method, path, headers=headers).status_code
                    for path, methods in paths.items()
                    for method in [*methods, "options"]
                }
                assert {path for (_, path), status in told.items() if status != 401} == {"/health"}
                refused = sum(status == 401 for status in told.values())
                row.observed = f"401, {refused} times"
    for target, expected in REFUSALS.items():
        with subtests.test(target), report.row(f"`GET {target}`", expected) as row:
            statuses = {status_of(guarded, target, host) for host in HOSTS}
            assert all(status in expected for status in statuses)
            row.observed = " and ".join(sorted(statuses))
    assert httpx.get(f"{guarded.server.url}/health").status_code == 200
    if full:
        report.write(TABLE)


def status_of(guarded: Guarded, target: str, host: str) -> str:
    """Return the status of a GET whose target and Host are sent as they are."""
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    return guarded.raw(head.encode()).split(b" ", 2)[1].decode()


def test_the_table_has_each_row_once() -> None:
    cells = re.findall(r"^\| (.+?) \| (.+?) \| (.+) \|$", TABLE.read_text(), re.MULTILINE)
    assert [row[:2] for row in cells[1:]] == [
        *((words, EVERYWHERE) for words in CREDENTIALS),
        *((f"`GET {target}`", expected) for target, expected in REFUSALS.items()),
    ]
    assert all(observed.startswith("40") for _, _, observed in cells[1:])
