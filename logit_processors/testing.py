"""Properties that every control has, for the tests of this project and of plugins.

@pytest.mark.parametrize("check", CHECKS)
def test_my_control(check):
    check(Harness(MyControl()))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch

from logit_processors.control import Control, Entry, Phase, WindowedEntry, between
from logit_processors.directions import Directions
from logit_processors.history import DeviceHistory, HostHistory
from logit_processors.host_text import HostTexts
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.pipeline import Pipeline
from logit_processors.program import Program
from logit_processors.standardise import standardise
from logit_processors.table import EngineFacts, Rows
from logit_processors.vocabulary import Vocabulary

CPU = torch.device("cpu")
LETTERS = [letter.encode() for letter in "abcdefg "]
VOCABULARY = Vocabulary([*LETTERS, *map(b"".join, product(LETTERS, LETTERS))])
_LONGEST = 12


@dataclass(frozen=True)
class Request:
    """A request that is about to choose a token: its entry, if it has one, and its text."""

    entry: Entry | None
    prompt: tuple[int, ...]
    output: tuple[int, ...]
    seed: int = 0


class Harness:
    """Runs one control on requests with random texts and logits.

    Args:
        control: the control under test, with examples.
        example: the index of the example to run.

    """

    def __init__(self, control: Control[Any], example: int = 0) -> None:
        self.control = control
        self.entry: Entry = control.entry.model_validate(control.examples[example])
        self.neutral = [control.entry.model_validate(each) for each in control.neutral]
        self.random = np.random.default_rng(example)
        self.directions = Directions()
        entries = (self.entry, *self.neutral)
        for name in {name for entry in entries for name in control.vectors(entry)}:
            scores = torch.from_numpy(self.random.standard_normal(VOCABULARY.width))
            self.directions.put(name, standardise(scores))

    def requests(self, count: int, entry: Entry | None) -> list[Request]:
        """Return requests with an entry, at different places in different texts."""
        return [
            Request(entry, self._tokens(1 + number % 5), self._tokens(number % _LONGEST), number)
            for number in range(count)
        ]

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self.random.integers(0, VOCABULARY.width, count).tolist())

    def logits(self, count: int) -> torch.Tensor:
        """Return random logits, ``[count, vocab]`` float32, of which some are -inf."""
        values = torch.from_numpy(self.random.normal(0, 3, (count, VOCABULARY.width))).float()
        masked = torch.from_numpy(self.random.random(values.shape) < 0.05)
        return values.masked_fill_(masked, -np.inf)

    def pipeline(self, slots: int) -> Pipeline:
        """Return a pipeline of this control alone."""
        texts = HostTexts(VOCABULARY, CPU)
        facts = EngineFacts(slots + 1, CPU, kernels=False, directions=self.directions, texts=texts)
        return Pipeline(facts, [self.control])

    def give(self, pipeline: Pipeline, slot: int, request: Request) -> None:
        """Give a slot a request's entry."""
        if request.entry is None:
            pipeline.set(slot, None)
            return
        patterns = {
            pattern: CompiledPattern.of(pattern, VOCABULARY)
            for pattern in self.control.patterns(request.entry)
        }
        program = Program({self.control.name: (request.entry,)})
        pipeline.set(slot, program, patterns, request.seed)

    def rows(self, requests: Sequence[Request], slots: Sequence[int]) -> Rows:
        """Return the rows of requests in slots, with their tokens on the host."""
        return Rows(
            np.array(slots, np.int64),
            torch.tensor(slots),
            torch.tensor([len(each.output) for each in requests]),
            HostHistory([e.output for e in requests], [e.prompt for e in requests], CPU),
        )

    def run(self, requests: Sequence[Request], logits: torch.Tensor) -> torch.Tensor:
        """Return the controlled logits of some requests, ``[rows, vocab]``."""
        pipeline = self.pipeline(len(requests))
        for slot, request in enumerate(requests):
            self.give(pipeline, slot, request)
        rows = self.rows(requests, range(len(requests)))
        return pipeline.apply(logits.clone(), rows, Phase.FORCE)


def an_entry_survives_the_way_between_processes(harness: Harness) -> None:
    """The worker reads the API process's program."""
    wire = harness.entry.model_dump(by_alias=True, exclude_defaults=True)
    assert harness.control.entry.model_validate(wire) == harness.entry


def an_example_does_something(harness: Harness) -> None:
    """One of many rows is changed."""
    logits = harness.logits(_LONGEST)
    assert not torch.equal(harness.run(harness.requests(_LONGEST, harness.entry), logits), logits)


def a_row_in_a_batch_is_the_row_alone(harness: Harness) -> None:
    """Neighbours change nothing, and rows without an entry stay as they are."""
    requests = harness.requests(_LONGEST, harness.entry)
    requests[1::3] = [replace(each, entry=None) for each in requests[1::3]]
    logits = harness.logits(_LONGEST)
    together = harness.run(requests, logits)
    for at, request in enumerate(requests):
        assert torch.equal(together[at : at + 1], harness.run([request], logits[at : at + 1]))
        assert request.entry is not None or torch.equal(together[at], logits[at])


def a_neutral_entry_is_off(harness: Harness) -> None:
    """A neutral entry changes nothing."""
    logits = harness.logits(_LONGEST)
    for neutral in harness.neutral:
        assert torch.equal(harness.run(harness.requests(_LONGEST, neutral), logits), logits)


def a_window_is_respected(harness: Harness) -> None:
    """Outside its window an entry is off, inside it acts as without one."""
    if not isinstance(harness.entry, WindowedEntry):
        return
    windowed = harness.entry.model_copy(update={"when": between(2, 4)})
    requests, logits = harness.requests(_LONGEST, windowed), harness.logits(_LONGEST)
    always = [replace(each, entry=harness.entry) for each in requests]
    expected = harness.run(always, logits)
    outside = [not 2 <= len(each.output) < 4 for each in requests]
    expected[outside] = logits[outside]
    assert torch.equal(harness.run(requests, logits), expected)


def a_slot_used_again_is_clean(harness: Harness) -> None:
    """A slot's last request leaves nothing behind."""
    first, second = harness.requests(2, harness.entry)
    pipeline, logits = harness.pipeline(1), harness.logits(1)
    for request in (first, replace(first, entry=None)):
        harness.give(pipeline, 0, request)
        pipeline.apply(logits.clone(), harness.rows([request], [0]), Phase.FORCE)
    nothing = harness.rows([second], [0])
    assert torch.equal(pipeline.apply(logits.clone(), nothing, Phase.FORCE), logits)
    harness.give(pipeline, 0, second)
    again = pipeline.apply(logits.clone(), harness.rows([second], [0]), Phase.FORCE)
    assert torch.equal(again, harness.run([second], logits))


def both_runners_give_the_same(harness: Harness) -> None:
    """Tokens and slots give the same results on the host and on the device."""
    if harness.control.patterns(harness.entry):
        return  # The kernels that match texts need Triton: tests of their own compare them.
    requests, logits = harness.requests(_LONGEST, harness.entry), harness.logits(_LONGEST)
    pipeline = harness.pipeline(_LONGEST)
    for slot, request in enumerate(requests):
        harness.give(pipeline, slot, request)
    rows = harness.rows(requests, range(_LONGEST))
    texts = [[*each.prompt, *each.output] for each in requests]
    committed = torch.zeros(_LONGEST, 2 * _LONGEST, dtype=torch.int32)
    for slot, text in enumerate(texts):
        committed[slot, : len(text)] = torch.tensor(text)
    newest = torch.tensor([len(text) - 1 for text in texts])
    history = DeviceHistory(
        fed=torch.tensor([text[-1] for text in texts]),
        offset=torch.zeros(_LONGEST, dtype=torch.int64),
        committed=committed,
        step_rows=torch.arange(_LONGEST),
        slots=rows.slots,
        newest=newest,
        positions=rows.positions,
    )
    expected = pipeline.apply(logits.clone(), rows, Phase.FORCE)
    on_device = replace(rows, history=history)
    assert torch.equal(pipeline.apply(logits.clone(), on_device, Phase.FORCE), expected)
    unknown = replace(on_device, host_slots=np.arange(_LONGEST - 1))
    harness.give(pipeline, _LONGEST - 1, replace(requests[-1], entry=None))
    expected[-1] = logits[-1]
    assert torch.equal(pipeline.apply(logits.clone(), unknown, Phase.FORCE), expected)


def no_row_is_not_a_number(harness: Harness) -> None:
    """Rows with masked tokens, rows with one token and equal logits give numbers or -inf."""
    logits = harness.logits(_LONGEST)
    logits[0] = 0.0
    logits[1], logits[1, 3] = -np.inf, 2.0
    made = harness.run(harness.requests(_LONGEST, harness.entry), logits)
    assert not torch.isnan(made).any()
    assert not torch.isposinf(made).any()


CHECKS: tuple[Callable[[Harness], None], ...] = (
    an_entry_survives_the_way_between_processes,
    an_example_does_something,
    a_row_in_a_batch_is_the_row_alone,
    a_neutral_entry_is_off,
    a_window_is_respected,
    a_slot_used_again_is_clean,
    both_runners_give_the_same,
    no_row_is_not_a_number,
)
"""The checks that each control must pass."""
