"""What waits to be sent, and what ends a request instead."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from vllm.exceptions import RetryableRequestError, VLLMValidationError
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from logit_processors.controls.steer import SteerEntry
from logit_processors.program import NO_PROGRAM, Program
from logit_processors.row_spec import ALIVE, BROKEN, EXHAUSTED, STATISTICS, RowSpec, TokenRow
from logit_processors.vocabulary import Vocabulary
from service.api.rows_tap import RowCollector, count_divergences
from service.distributions.token_texts import TokenTexts
from service.pieces import json_pieces
from service.planning.budget import Budget
from service.planning.plan import Plan
from service.schemas.distribution import DistributionRequest, Stage
from tests.entries import bias_token, program_of, spec_of, steer_residual, suppress_token
from tests.service.planning import asking
from tests.unit_support import token_row

TEXTS = TokenTexts(Vocabulary([b"a", b"b"]))


def output(*alive: float) -> CompletionOutput:
    """Return an engine's output of so many tokens, whose rows say only how they were left."""
    rows: Any = []
    for value in alive:
        statistics = np.zeros(len(STATISTICS), np.float32)
        statistics[STATISTICS.index("alive")] = value
        nothing = np.empty((1, 0), np.float32)
        rows.append(TokenRow(nothing.astype(np.int32), nothing, statistics))
    return CompletionOutput(0, "", list(range(len(alive))), None, rows)


def tap(
    spec: RowSpec | None = spec_of(),  # noqa: B008 - frozen
    program: Program = NO_PROGRAM,
    *,
    shows_rows: bool = False,
    arrow: bool = False,
    masks: tuple[str, ...] = (),
    prompt_spec: RowSpec | None = None,
    count: int | None = None,
    **asked_for: int,
) -> RowCollector:
    nothing = {"prompt_logprobs": None, "distribution": None, "choices": 1}
    asked = SimpleNamespace(**nothing | asked_for, arrow=arrow)
    plan: Any = SimpleNamespace(
        spec=spec,
        program=program,
        masks=masks,
        prompt_spec=prompt_spec,
        asked=asked,
        leave_queue=lambda: None,
        tokens=0,
        shows_rows=shows_rows,
        width=2,
        unseen=(),
    )
    return RowCollector(plan, TEXTS, count=count)


def test_rows_that_are_well_add_nothing_to_an_answer_that_asked_for_none() -> None:
    taken = tap()
    taken.take(0, output(ALIVE, ALIVE))
    choice = {"index": 0, "delta": {"content": "a"}}
    taken.into_choice(choice, chat=True)
    assert choice == {"index": 0, "delta": {"content": "a"}}


@pytest.mark.parametrize(
    ("shows_rows", "event"),
    [
        (False, 'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'),
        # An error can come while rows wait: another choice of the same step has ended badly.
        (True, 'data: {"error": {"message": "no token", "code": 400}}\n\n'),
        (True, 'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n'),
        (True, "data: [DONE]\n\n"),
    ],
)
async def test_events_that_show_no_rows_pass_as_they_are(shows_rows: bool, event: str) -> None:
    async def events() -> AsyncIterator[str]:
        yield event

    taken = tap(shows_rows=shows_rows)
    taken.take(0, output(ALIVE))
    assert [shown async for shown in taken.into_stream(events())] == [event]


async def test_rows_wait_for_the_event_after_the_one_that_echoes() -> None:
    async def events() -> AsyncIterator[str]:
        for delta in ({"role": "assistant"}, {"content": "once "}, {"content": "upon"}):
            event = {"choices": [{"index": 0, "delta": delta}]}
            yield f"data: {json.dumps(event)}\n\n"

    taken = tap(spec_of(0, base=True), shows_rows=True, count=0)
    taken.take(0, output(ALIVE))
    shown = taken.into_stream(events(), echoes=1)
    told = [json.loads(event[len("data: ") :]) async for event in shown]
    assert ["logprobs" in event["choices"][0] for event in told] == [False, False, True]


def result(prompt_token_ids: list[int], prompt_logprobs: Any) -> RequestOutput:
    """Return an engine's result of a prompt that has generated nothing yet."""
    return RequestOutput("1", None, prompt_token_ids, prompt_logprobs, [], finished=False)


def test_each_choice_has_the_logprobs_of_its_prompt() -> None:
    taken = tap(prompt_spec=spec_of(0, base=True), prompt_logprobs=0, choices=2)
    for _ in range(2):  # two choices of one prompt, not in one step
        told = result([1, 0], output(ALIVE).logprobs)
        taken.take_prompt(2, told)
        assert told.prompt_logprobs is None, "vLLM writes none"
    for choice in (2, 3):
        answer: dict[str, Any] = {"index": choice}
        taken.into_choice(answer, chat=False)
        first, second = json.loads(b"".join(json_pieces(answer)))["prompt_logprobs"]
        assert (first, list(second)) == (None, ["0"])
    assert taken.prompt_logprobs(0) is None


def test_the_engines_own_logprobs_are_told_where_they_are_asked_for() -> None:
    entry = {1: Logprob(-0.5, 1, "b"), 0: Logprob(-1.0, 2, "a")}
    told = CompletionOutput(0, "b", [1], None, [entry])
    for count, expected in ((1, ["b"]), (None, None)):
        taken = tap(spec=None, count=count)
        taken.take(0, told)
        answer: dict[str, Any] = {"index": 0}
        taken.into_choice(answer, chat=True)
        listed = json.loads(b"".join(json_pieces(answer))).get("logprobs")
        assert (listed and [e["token"] for e in listed["content"][0]["top_logprobs"]]) == expected


def test_the_prompt_is_told_with_the_first_rows() -> None:
    request = DistributionRequest(top_k=1, prompt=True, stages=["base"])
    spec = spec_of(1, base=True)
    rows = [token_row([[-0.5]], [[0]], alive=ALIVE), token_row([[-1.0]], [[1]], alive=ALIVE)]
    taken = tap(spec, shows_rows=True, prompt_spec=spec, distribution=request)  # type: ignore[arg-type]
    taken.take_prompt(0, result([1, 0], rows[:1]))
    taken.take(0, CompletionOutput(0, "b", [1], None, rows[1:]))
    answer: dict[str, Any] = {"index": 0}
    taken.into_choice(answer, chat=True)
    told = json.loads(b"".join(json_pieces(answer)))["distribution"]
    read = [
        np.frombuffer(b64decode(each["sampled"]["token_id"]["data"]), np.int32).tolist()
        for each in (told, told["prompt"])
    ]
    assert read == [[1], [0]]


PROGRAM = program_of(token_bias=(bias_token(0, 1.0),))
STEERED = (steer_residual("calm", 1.0),)


@pytest.mark.parametrize(
    ("program", "residual", "stages", "counted"),
    [
        (PROGRAM, (), ["base", "controlled"], [0.5]),
        (PROGRAM, (), ["controlled"], []),
        (None, (), ["base", "controlled"], []),
        (None, STEERED, ["base", "controlled"], []),
        (PROGRAM, STEERED, ["base", "controlled"], []),
    ],
    ids=["control", "one stage", "no control", "residual steering", "both"],
)
def test_a_divergence_is_counted_where_it_says_what_control_did(
    program: Program | None,
    residual: tuple[SteerEntry, ...],
    stages: list[Stage],
    counted: list[float],
) -> None:
    asked = asking.asked(distribution={"stages": stages})
    entries = {**(program or NO_PROGRAM).entries, "steer_residual": residual}
    plan = Plan(asked, Program.of(entries), None, None, 2, Budget(1, 1), ExitStack())
    rows = output(ALIVE, ALIVE).logprobs
    rows[0].statistics[STATISTICS.index("kl")] = np.nan  # of a model steered out of its numbers
    rows[1].statistics[STATISTICS.index("kl")] = 0.5
    before = divergences()
    count_divergences(plan, rows)
    count, total = divergences()
    assert (count - before[0], total - before[1]) == (len(counted), sum(counted))


def divergences() -> tuple[float, float]:
    """Return how many divergences have been counted, and their sum."""
    count, total = (
        REGISTRY.get_sample_value(f"sensefield_kl_nats_{name}") for name in ("count", "sum")
    )
    assert count is not None
    assert total is not None
    return count, total


def test_a_row_without_tokens_ends_its_request_as_the_clients_fault() -> None:
    with pytest.raises(VLLMValidationError, match="left no token") as refused:
        tap().take(0, output(ALIVE, EXHAUSTED))
    assert refused.value.parameter == "logit_control.suppress"


def test_a_row_that_lost_its_forced_token_blames_the_force() -> None:
    with pytest.raises(VLLMValidationError, match="forced token") as refused:
        tap(program=program_of(force=(3,))).take(0, output(EXHAUSTED))
    assert refused.value.parameter == "logit_control.force"


SUPPRESS = program_of(token_suppress=(suppress_token(3),))


@pytest.mark.parametrize(
    ("program", "blamed", "told"),
    [
        (NO_PROGRAM, "allowed_token_ids", "allowed_token_ids and the grammar left no token"),
        (SUPPRESS, "logit_control.suppress", "suppression"),
    ],
)
def test_a_row_that_masks_emptied_blames_them(program: Program, blamed: str, told: str) -> None:
    masks = ("allowed_token_ids", "structured_outputs")
    with pytest.raises(VLLMValidationError, match=told) as refused:
        tap(program=program, masks=masks).take(0, output(EXHAUSTED))
    assert refused.value.parameter == blamed


@pytest.mark.parametrize("alive", [(BROKEN,), (ALIVE, BROKEN), (EXHAUSTED, BROKEN)])
def test_a_row_whose_program_could_not_run_may_be_sent_again(alive: tuple[float, ...]) -> None:
    with pytest.raises(RetryableRequestError, match="send it again"):
        tap().take(0, output(*alive))


def test_rows_are_nobodys_where_none_were_asked_for() -> None:
    tap(spec=None).take(0, output(BROKEN))


@pytest.mark.parametrize(("arrow", "counted"), [(False, 3), (True, 0)])
def test_tokens_are_counted_where_they_are_first_seen(arrow: bool, counted: int) -> None:
    taken = tap(arrow=arrow)
    taken.take(0, output(ALIVE))
    taken.take(1, output(ALIVE, ALIVE))
    assert taken._plan.tokens == counted
