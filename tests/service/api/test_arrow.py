"""An Arrow answer between an engine and a reader, without either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pytest
from vllm import SamplingParams
from vllm.exceptions import RetryableRequestError
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError

from service.api.arrow import ArrowAnswer, accepts_arrow
from service.distributions.token_texts import TokenTexts
from service.schemas.distribution import DistributionRequest
from tests.entries import spec_of
from tests.unit_support import FOUR, token_row

ARROW = "application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (ARROW, True),
        (f"{ARROW};q=0.2", True),
        (f"text/html, {ARROW.upper()} ; q=1.0", True),
        (f"application/json;q=0.9, {ARROW}", True),
        (f"application/json, {ARROW};q=0.9", False),
        (f"{ARROW};q=0", False),
        (f"{ARROW};q=x", False),
        ("*/*", False),
        ("application/*", False),
        ("", False),
    ],
)
def test_accept(accept: str, wanted: bool) -> None:
    assert accepts_arrow(accept) is wanted


class Engine:
    """Generates given steps of (choice, token ids) and counts those taken from it."""

    def __init__(self, *steps: tuple[int, list[int]]) -> None:
        self._steps = steps
        self.taken = 0
        self.closed = False

    async def generate(self, _prompt: Any, params: Any) -> AsyncGenerator[RequestOutput, None]:
        assert params.output_kind == RequestOutputKind.DELTA
        try:
            for choice, token_ids in self._steps:
                self.taken += 1
                yield _output(choice, token_ids, last=self.taken == len(self._steps))
        finally:
            self.closed = True


def _output(choice: int, token_ids: list[int], *, last: bool) -> RequestOutput:
    logprobs: Any = [
        token_row([[-0.5]], [[token]], controlled_logprob=-0.5, alive=1.0) for token in token_ids
    ]
    text = "".join("ab"[token] for token in token_ids)
    reason = "length" if last else None
    output = CompletionOutput(choice, text, list(token_ids), None, logprobs, reason)
    return RequestOutput("id", None, [0], None, [output], finished=last)


def answer_of(engine: Any, choices: int = 1) -> ArrowAnswer:
    asked = SimpleNamespace(
        distribution=DistributionRequest(top_k=1), logprobs=None, prompt_logprobs=None, arrow=True
    )
    plan: Any = SimpleNamespace(
        tokens=0,
        asked=asked,
        spec=spec_of(1, controlled=True),
        program=None,
        masks=(),
        prompt_spec=None,
        width=4,
        unseen=(),
        leave_queue=lambda: None,
    )
    return ArrowAnswer(engine, plan, TokenTexts(FOUR), choices)


async def collect(answer: ArrowAnswer, prompts: int = 1) -> list[bytes]:
    """Answer as vLLM's serving does: from the last thing that each prompt's engine yields."""
    texts = []
    for _ in range(prompts):
        last: Any = None
        async for result in answer.generate("prompt", SamplingParams()):
            assert last is None, "the whole comes once"
            last = result
        texts += [(output.index, output.text, output.finish_reason) for output in last.outputs]
    return [b'{"texts":', orjson.dumps(texts), b"}"]


async def content_of(answer: ArrowAnswer) -> bytes:
    return b"".join([bytes(part) async for part in answer.body()])


def parse(content: bytes) -> tuple[list[tuple[int, int, int]], Any]:
    """Return (choice, position, token id) of all rows, and the closing batch's metadata."""
    found, metadata = [], None
    reader = pa.ipc.open_stream(content)
    try:
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            columns = (batch[name].to_pylist() for name in ("choice", "position", "token_id"))
            found += list(zip(*columns, strict=True))
    except (StopIteration, pa.ArrowInvalid):
        return found, metadata


async def test_rows_go_out_and_the_whole_comes_back() -> None:
    engine = Engine((1, [0, 1]), (0, [0]), (1, [1]), (0, [1, 1]))
    answer = answer_of(engine, choices=2)
    assert await answer.start(collect(answer, prompts=2)) is None
    rows, metadata = parse(await content_of(answer))
    one = [(1, 0, 0), (1, 1, 1), (0, 0, 0), (1, 2, 1), (0, 1, 1), (0, 2, 1)]
    assert rows == one + [(choice + 2, position, token) for choice, position, token in one]
    texts = orjson.loads(metadata[b"sensefield.response"])["texts"]
    assert texts[0][:2] == [0, "abb"]
    assert texts[1][:2] == [1, "abb"]
    assert answer.outcome == "ok"


async def test_the_engine_waits_for_the_reader() -> None:
    engine = Engine(*[(0, [0])] * 9)
    answer = answer_of(engine)
    await answer.start(collect(answer))
    body = answer.body()
    await anext(body)
    for expected in (2, 3, 4):
        await anext(body)
        for _ in range(20):
            await asyncio.sleep(0)  # whatever can run, does
        assert engine.taken == expected
    await body.aclose()
    assert engine.closed


async def test_what_fails_before_the_first_row_is_raised() -> None:
    answer = answer_of(Engine())

    async def refuse() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await answer.start(refuse())


@pytest.mark.parametrize(
    ("failure", "type_", "message", "outcome"),
    [
        (ValueError("bad"), "BadRequestError", "bad", "client_error"),
        (RetryableRequestError("later"), "overloaded_error", "later", "unavailable"),
        (KeyError("secret"), "server_error", "internal error", "server_error"),
        (EngineDeadError(), "InternalServerError", EngineDeadError().args[0], "server_error"),
    ],
)
async def test_what_fails_later_is_told_in_the_stream(
    failure: Exception, type_: str, message: str, outcome: str
) -> None:
    answer = answer_of(Engine((0, [0])))

    async def fail() -> None:
        await collect(answer)
        raise failure

    assert await answer.start(fail()) is None
    content = await content_of(answer)
    rows, metadata = parse(content)
    assert rows == [(0, 0, 0)]
    error = orjson.loads(metadata[b"sensefield.error"])["error"]
    assert error["message"] == message
    assert error["type"] == type_
    assert answer.outcome == outcome
    with pytest.raises(pa.ArrowInvalid):
        pa.ipc.open_stream(content).read_all()
