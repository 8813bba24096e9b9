"""Whole completions from vLLM's own results, written as their JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from logit_processors.row_spec import ALIVE
from logit_processors.vocabulary import Vocabulary
from service.api.requests import TextRequest
from service.api.serving import TextServing
from service.distributions.token_texts import TokenTexts
from service.pieces import json_pieces
from service.planning.planner import Planner
from tests.service.planning.asking import new_planner
from tests.unit_support import FakeEngine, token_row

EURO = "€".encode()
A, B, *PARTS = range(5)
TEXTS = TokenTexts(Vocabulary([b"a", b" b", EURO[:1], EURO[1:2], EURO[2:]]))


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    return new_planner(tmp_path, FakeEngine())


def serving() -> TextServing:
    stock = OpenAIServingCompletion.__new__(OpenAIServingCompletion)
    stock.return_tokens_as_token_ids = False
    stock.enable_prompt_tokens_details = stock.enable_per_request_metrics = False
    stock.system_fingerprint = None
    return TextServing.with_texts(stock, TEXTS)


def row(token_id: int) -> Any:
    return token_row([[-0.5, -1.0]], [[A, PARTS[0]]], base_logprob=-float(token_id), alive=ALIVE)


def answer(planner: Planner, fields: dict[str, Any], result: RequestOutput) -> Any:
    """Return the answer to a completion that the engine has ended so."""
    request = TextRequest(model="m", prompt="a", max_tokens=4, **fields)
    request.make_plan(planner, arrow=False)
    metadata = RequestResponseMetadata(request_id="1")
    written = serving().request_output_to_completion_response(
        [result], request, "1", 0, "m", None, metadata
    )
    request.plan.close()
    return json.loads(b"".join(json_pieces(written)))


def result(prompt: list[int], rows: list[Any] | None, *choices: list[int]) -> RequestOutput:
    outputs = []
    for at, token_ids in enumerate(choices):
        logprobs: Any = list(map(row, token_ids))
        outputs.append(CompletionOutput(at, f"text {at}", token_ids, None, logprobs, "length"))
    return RequestOutput("1", "a b", prompt, rows, outputs, finished=True)


def test_each_choice_echoes_the_prompt_with_its_rows(planner: Planner) -> None:
    told = answer(
        planner,
        {"logprobs": 1, "echo": True, "n": 2},
        result([A, B], [row(B)], [A, *PARTS], [B]),
    )
    first, second = told["choices"]
    assert first["text"] == "a btext 0"
    assert first["logprobs"]["tokens"] == ["a", " b", "a", "", "", "€"]
    assert first["logprobs"]["text_offset"] == [0, 1, 3, 4, 4, 4]
    assert first["logprobs"]["token_logprobs"] == [None, -1.0, 0.0, -2.0, -3.0, -4.0]
    assert first["logprobs"]["top_logprobs"][1] == {" b": -1.0, "a": -0.5}
    assert first["logprobs"]["top_logprobs"][3] == {"": -2.0, "a": -0.5}
    assert second["logprobs"]["tokens"] == ["a", " b", " b"]
    for choice in (first, second):
        assert choice["prompt_logprobs"][0] is None
        assert choice["prompt_logprobs"][1]["1"]["decoded_token"] == " b"
    assert told["usage"]["completion_tokens"] == 5


def test_without_logprobs_there_are_none(planner: Planner) -> None:
    (choice,) = answer(planner, {}, result([A], None, [B]))["choices"]
    assert choice["logprobs"] is None
    assert choice["prompt_logprobs"] is None


@pytest.mark.parametrize("as_ids", [False, True])
def test_what_beam_search_measured_is_written_likewise(planner: Planner, as_ids: bool) -> None:
    entry = {A: Logprob(-0.5, 1, "?"), PARTS[0]: Logprob(-1.0, 2, ""), B: Logprob(-2.0, 3, "?")}
    beams: Any = result([A], None, [B])
    beams.outputs[0].logprobs = [entry]
    fields = {"use_beam_search": True, "logprobs": 2, "return_tokens_as_token_ids": as_ids}
    (choice,) = answer(planner, fields, beams)["choices"]
    named = {"token_id:1": -2.0, "token_id:0": -0.5, "token_id:2": -1.0}
    texts = {" b": -2.0, "a": -0.5, "bytes:\\xe2": -1.0}
    assert choice["logprobs"]["top_logprobs"] == [named if as_ids else texts]
    assert choice["logprobs"]["text_offset"] == [0]
