"""What waits to be sent, and what ends a request instead."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from vllm.exceptions import RetryableRequestError, VLLMValidationError

from logit_processors.controls import TokenSuppress
from logit_processors.program import Program
from logit_processors.row_spec import ALIVE, BROKEN, EXHAUSTED, STATISTICS, RowSpec, TokenRow
from logit_processors.vocabulary import Vocabulary
from service.api.rows_tap import RowsTap, count_rows
from service.distributions.token_texts import TokenTexts
from service.schemas.distribution import DistributionRequest

TEXTS = TokenTexts(Vocabulary([b"a", b"b"]))


def output(*alive: float) -> Any:
    """Return an engine's output of so many tokens, whose rows say only how they were left."""
    rows = []
    for value in alive:
        statistics = np.zeros(len(STATISTICS), np.float32)
        statistics[STATISTICS.index("alive")] = value
        nothing = np.empty((1, 0), np.float32)
        rows.append(TokenRow(nothing.astype(np.int32), nothing, statistics))
    return SimpleNamespace(token_ids=list(range(len(alive))), logprobs=rows)


def tap(
    spec: RowSpec | None = RowSpec(),  # noqa: B008 - frozen
    program: Program | None = None,
    *,
    shows_rows: bool = False,
    arrow: bool = False,
    masks: tuple[str, ...] = (),
    prompt_spec: RowSpec | None = None,
    **asked_for: int,
) -> RowsTap:
    nothing = {"logprobs": None, "prompt_logprobs": None, "distribution": None}
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
    )
    return RowsTap(plan, TEXTS)


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
    assert [shown async for shown in taken.into_stream(events(), chat=True)] == [event]


async def test_rows_wait_for_the_event_after_the_one_that_echoes() -> None:
    async def events() -> AsyncIterator[str]:
        for delta in ({"role": "assistant"}, {"content": "once "}, {"content": "upon"}):
            event = {"choices": [{"index": 0, "delta": delta}]}
            yield f"data: {json.dumps(event)}\n\n"

    taken = tap(RowSpec(0, base=True), shows_rows=True, logprobs=0)
    taken.take(0, output(ALIVE))
    shown = taken.into_stream(events(), chat=True, echoes=1)
    told = [json.loads(event[len("data: ") :]) async for event in shown]
    assert ["logprobs" in event["choices"][0] for event in told] == [False, False, True]


def test_each_choices_result_has_the_logprobs_of_its_prompt() -> None:
    taken = tap(prompt_spec=RowSpec(0, base=True), prompt_logprobs=0)
    for _ in range(2):  # two choices of one prompt, not in one step
        result: Any = SimpleNamespace(
            prompt_logprobs=output(ALIVE).logprobs, prompt_token_ids=[1, 0]
        )
        taken.take_prompt(0, result)
        first, second = result.prompt_logprobs
        assert (first, list(second)) == (None, [0])


def test_a_divergence_that_is_no_number_is_not_counted() -> None:
    before = REGISTRY.get_sample_value("sensefield_kl_nats_sum")
    rows = output(ALIVE, ALIVE).logprobs
    rows[0].statistics[STATISTICS.index("kl")] = np.nan
    rows[1].statistics[STATISTICS.index("kl")] = 0.5
    request = DistributionRequest(stages=["base", "controlled"])
    count_rows(request, RowSpec(0, base=True, controlled=True), "json", rows)
    assert before is not None
    assert REGISTRY.get_sample_value("sensefield_kl_nats_sum") == before + 0.5


def test_a_row_without_tokens_ends_its_request_as_the_clients_fault() -> None:
    with pytest.raises(VLLMValidationError, match="left no token") as refused:
        tap().take(0, output(ALIVE, EXHAUSTED))
    assert refused.value.parameter == "logit_control.suppress"


def test_a_row_that_lost_its_forced_token_blames_the_force() -> None:
    with pytest.raises(VLLMValidationError, match="forced token") as refused:
        tap(program=Program(force=(3,))).take(0, output(EXHAUSTED))
    assert refused.value.parameter == "logit_control.force"


SUPPRESS = Program(token_suppress=(TokenSuppress(3),))


@pytest.mark.parametrize(
    ("program", "blamed", "told"),
    [
        (None, "allowed_token_ids", "allowed_token_ids and the grammar left no token"),
        (SUPPRESS, "logit_control.suppress", "suppression"),
    ],
)
def test_a_row_that_masks_emptied_blames_them(
    program: Program | None, blamed: str, told: str
) -> None:
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
