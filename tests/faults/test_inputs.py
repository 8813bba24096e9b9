"""What no client should send, to one engine that answers others meanwhile.

``--full`` also writes docs/faults/inputs.md.
"""

from __future__ import annotations

import re

import httpx
import numpy as np
import orjson
import pytest
import safetensors.numpy

from service.errors import MAX_ECHO
from tests.faults.canary import Canary
from tests.faults.inputs import CASES, Case
from tests.faults.report import Report
from tests.faults.streams import client_of, settle
from tests.integration.client import Client
from tests.integration.servers import REPOSITORY

MAX_MESSAGE = 1000
MAX_SHOWN = 160
"""Characters of a message in the table."""
TABLE = REPOSITORY / "docs" / "faults" / "inputs.md"
TOLD = """\
`make faults` sends all this to a real server, and wrote this table; every run of the tests sends it
too. A refusal is named by its status and the error's `param`, and its message follows. Meanwhile a
controlled, seeded request with distributions is asked without end, and its answer stays the same.
What is sent without a key is told [apart](strangers.md). The model pads its logits with no tokens,
so there is no padded id to name.
"""


def test_each_input_gets_its_answer(v1: Client, full: bool, subtests: pytest.Subtests) -> None:
    vector = safetensors.numpy.save({"direction": np.arange(576, dtype=np.float32)})
    v1.http.put("/v1/vectors/inputs", content=vector).raise_for_status()
    report = Report("Inputs, and what the server answers", TOLD, "input")
    other = Client(v1.server)
    with other.http, Canary(other).asking():
        for case in CASES:
            with subtests.test(case.name), report.row(case.request, case.expected) as row:
                found, message = outcome(v1.http, case)
                row.observed = found + (f": {shown(message)}" if message else "")
                assert found == case.expected
    v1.http.delete("/v1/vectors/inputs").raise_for_status()
    if full:
        report.write(TABLE)


@pytest.mark.alone
async def test_nothing_is_left_of_them(v1: Client) -> None:
    async with client_of(v1.server) as client:
        await settle(client)
        assert (await client.get("/ready")).status_code == 200


def test_the_table_has_each_input_once() -> None:
    cells = re.findall(r"^\| (.+?) \| (.+?) \| (.+) \|$", TABLE.read_text(), re.MULTILINE)
    rows = [(request, expected) for request, expected, _ in cells[1:]]
    assert rows == [(case.request, case.expected) for case in CASES]
    assert all(observed.startswith(expected) for _, expected, observed in cells[1:])


def outcome(http: httpx.Client, case: Case) -> tuple[str, str]:
    """Send a case; return the answer in the words in which one is expected, and an error's message.

    An error is OpenAI's object, and repeats no more of what was sent than it may.
    """
    answer = send(http, case, case.body)
    if not answer.is_success:
        error, before = answer.json()["error"], f"{answer.status_code}"
    elif answer.headers["content-type"].startswith("text/event-stream"):
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        error, before = orjson.loads(events[-1])["error"], "200, then in the stream an error"
    else:
        choice = answer.json()["choices"][0]
        found = f"200, `finish_reason` `{choice['finish_reason']}`"
        if case.like is not None:
            assert choice == send(http, case, case.like).json()["choices"][0]
            found += ", as without it"
        return found, ""
    assert set(error) == {"message", "type", "param", "code"}
    message: str = error["message"]
    assert 0 < len(message) <= MAX_MESSAGE
    assert message.startswith(f"{error['param']}: ")
    text = message.encode()
    longer = (text[at : at + MAX_ECHO + 1] for at in range(len(text) - MAX_ECHO))
    assert not any(part in case.body for part in longer)
    return f"{before} `{error['param']}`", message.removeprefix(f"{error['param']}: ")


def send(http: httpx.Client, case: Case, body: bytes) -> httpx.Response:
    headers = {"content-type": case.media_type}
    return http.request(case.method, case.path, content=body, headers=headers)


def shown(message: str) -> str:
    """Return a message as a cell of the table has it."""
    line = " ".join(message.split()).replace("|", "\\|")
    return line if len(line) <= MAX_SHOWN else line[: MAX_SHOWN - 1] + "…"
