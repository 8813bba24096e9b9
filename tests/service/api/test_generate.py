"""What the generating routes refuse, and how a refusal of vLLM's is answered and counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import REGISTRY
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse

from service.access.visit import Visit
from service.api.generate import _check_shown, _refuse
from service.api.outcome import Outcome
from service.api.requests import ChatRequest
from service.api.serving import ChatServing, TextServing, with_rows
from service.errors import BadRequestError


def serving(kind: Any, parser: Any) -> Any:
    made = kind.__new__(kind)
    made.parser_cls = parser
    return made


@pytest.mark.parametrize(
    ("kind", "parser", "includes", "arrow"),
    [
        (ChatServing, object, True, True),
        (ChatServing, object, False, False),
        (ChatServing, None, False, True),
        (TextServing, object, False, True),
    ],
)
def test_what_hides_no_token_may_be_an_arrow_stream(
    kind: Any, parser: Any, includes: bool, arrow: bool
) -> None:
    request = ChatRequest(messages=[], include_reasoning=includes)
    _check_shown(request, serving(kind, parser), arrow)


def test_an_arrow_stream_tells_no_hidden_reasoning() -> None:
    request = ChatRequest(messages=[], include_reasoning=False)
    with pytest.raises(BadRequestError, match="hides tokens") as refused:
        _check_shown(request, serving(ChatServing, object), arrow=True)
    assert refused.value.param == "include_reasoning"


def test_an_error_is_no_answer() -> None:
    failed = ErrorResponse(
        error=ErrorInfo(
            message="No output received from the engine.", type="InternalServerError", code=500
        )
    )
    assert with_rows(failed, None, chat=True) is failed


async def test_an_answer_to_who_has_left_is_cancelled() -> None:
    visit = Visit()
    outcome = Outcome("chat", visit)
    left = ErrorResponse(error=ErrorInfo(message="Client disconnected", type="Bad", code=400))

    async def serve() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as vLLM's chat has it
            _refuse(left, outcome, visit)
            outcome.end()

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0)
    serving.cancel()
    await serving
    assert outcome.name == "cancelled"


@pytest.mark.parametrize(
    ("status", "retry", "outcome"), [(503, "5", "unavailable"), (400, None, "client_error")]
)
async def test_a_refusal_of_vllms_is_answered_as_ours_and_counted(
    status: int, retry: str | None, outcome: str
) -> None:
    labels = {"status": str(status), "reason": "AnError"}
    before = REGISTRY.get_sample_value("sensefield_rejected_requests_total", labels) or 0.0
    ended = Outcome("chat", Visit())
    refusal = ErrorResponse(error=ErrorInfo(message="no", type="AnError", code=status))
    answer = _refuse(refusal, ended, Visit())
    ended.end()
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry)
    error = json.loads(bytes(answer.body))["error"]
    assert error == {"message": "no", "type": "AnError", "param": None, "code": None}
    assert ended.name == outcome
    after = REGISTRY.get_sample_value("sensefield_rejected_requests_total", labels)
    assert after == before + 1
