"""The table of other servers' names."""

from __future__ import annotations

import subprocess
import sys

import pytest
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from service.api.foreign import FOREIGN, Foreign
from service.api.requests import ChatRequest, TextRequest
from service.api.unknown_fields import fields_of

KNOWN = fields_of(ChatRequest | TextRequest | ResponsesRequest | AnthropicMessagesRequest)


@pytest.mark.parametrize(("name", "foreign"), FOREIGN.items())
def test_each_entry_says_what_to_do(name: str, foreign: Foreign) -> None:
    assert bool(foreign.use) != bool(foreign.lacks)
    for use in foreign.use:
        head = use.partition(".")[0].partition("[")[0]
        assert head in KNOWN or " " in use
        assert use != name or len(foreign.use) > 1
    assert FOREIGN.keys() >= set(foreign.part_of)


def test_the_table_needs_no_torch() -> None:
    code = "import sys, service.api.foreign; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
