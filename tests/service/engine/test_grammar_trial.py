"""Grammars compiled in a fork: what is let through, and which limit stops what is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output.backend_guidance import GuidanceBackend

from service.engine import grammar_trial
from service.engine.family import is_alive
from service.engine.grammar_trial import Compilers, Limits, apart, follow
from tests.waiting import wait_for

# vLLM's call of xgrammar.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")

LIMITS = Limits(cpu_seconds=2, memory_bytes=1 << 28)
TAG: dict[str, Any] = {
    "type": "structural_tag",
    "format": {
        **{"type": "tag", "begin": "<a>", "end": "</a>"},
        "content": {"type": "json_schema", "json_schema": {"type": "integer"}},
    },
}
OPTIONAL = {
    f"p{at}": {"type": "object", "properties": {"q": {"type": "number"}}} for at in range(9)
}
PLAIN: list[dict[str, Any]] = [
    {"regex": r"\+?\d{1,3}[-. ]?\(?\d{3}\)?[-. ]?\d{3}[-. ]?\d{4}"},
    {"choice": ["yes", "no"]},
    {"json": {"type": "object", "properties": OPTIONAL}},
    {"json": {"type": "string", "pattern": "^a+$", "maxLength": 5}},  # not for xgrammar
    {"json": {"type": "array", "items": [{"type": "boolean"}]}},
    {"json": {"oneOf": [{"type": "boolean"}, {"type": "null"}]}},
    {"json": {"type": "object", "properties": {"a": {}}, "patternProperties": {"b": {}}}},
    {"grammar": '%llguidance {}\nstart: "a" | "b"'},
    {"json_object": True},
    {"grammar": 'root ::= "a" root | "b"'},
    {"structural_tag": json.dumps(TAG)},
]
CHAIN = "\n".join(f"r{at} ::= r{at + 1} | [a-z] r{at + 1}" for at in range(500))
COSTLY: list[tuple[dict[str, Any], str]] = [
    ({"regex": ".?" * 40}, "is too costly: compiling it takes over 2 s"),
    (
        {"grammar": f'root ::= r0\n{CHAIN}\nr500 ::= "x"'},
        "is too costly: compiling it takes over 2 s",
    ),
    (
        {"json": {"allOf": [{"type": "array", "items": {}, "maxItems": 10**6}, {}]}},
        "is too costly: compiling it takes over 256 MiB",
    ),
]
NOT_FOR_XGRAMMAR = {**TAG["format"], "content": {"type": "json_schema", "json_schema": {"not": {}}}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"regex": "[a"},
        'cannot be compiled: Grammar error: at 1(8): invalid regex "[a" (in regex): ',
    ),
    (
        {"json": {"type": "array", "uniqueItems": True}},
        'cannot be compiled: Grammar error: Unimplemented keys: ["uniqueItems"]',
    ),
    (
        {"json": {"type": "integer", "not": {"const": 1}}},
        "cannot be enforced: xgrammar passes over not, and guidance says: Grammar error: "
        'Unimplemented keys: ["not"]',
    ),
    (
        {"structural_tag": json.dumps({**TAG, "format": NOT_FOR_XGRAMMAR})},
        "cannot be enforced: xgrammar passes over format.content.json_schema.not, and no other "
        "compiler takes such a tag",
    ),
]


@pytest.fixture(scope="module")
def compilers(vllm_config: VllmConfig) -> Compilers:
    """The compilers of the embedded model's server."""
    return Compilers(vllm_config)


@pytest.mark.parametrize("grammar", PLAIN, ids=str)
def test_what_people_ask_for_is_let_through(compilers: Compilers, grammar: dict[str, Any]) -> None:
    assert tried(compilers, grammar) is None


@pytest.mark.parametrize(("grammar", "told"), COSTLY, ids=["cpu", "rules", "memory"])
def test_what_would_hold_up_the_engine_is_not(
    compilers: Compilers, grammar: dict[str, Any], told: str
) -> None:
    # Whatever the machine's speed, memory is short before time is.
    seconds = 120 if told.endswith("MiB") else LIMITS.cpu_seconds
    assert tried(compilers, grammar, replace(LIMITS, cpu_seconds=seconds)) == told


@pytest.mark.parametrize(("grammar", "told"), REFUSED, ids=str)
def test_a_grammar_that_no_compiler_enforces_is_refused(
    compilers: Compilers, grammar: dict[str, Any], told: str
) -> None:
    assert (tried(compilers, grammar) or "").startswith(told)


def test_one_compiler_alone_is_not_left_for_another(
    vllm_config: VllmConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_config.structured_outputs_config, "backend", "xgrammar")
    only = Compilers(vllm_config)
    assert tried(only, {"json": {"type": "integer"}}) is None
    told = "cannot be enforced: xgrammar passes over not, and the server uses no other compiler"
    assert tried(only, {"json": {"type": "integer", "not": {"const": 1}}}) == told


def test_a_compiler_of_another_vocabulary_is_not_used(
    compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = GuidanceBackend(compilers._config, compilers._tokenizer, 1 << 17)
    monkeypatch.setitem(compilers._made, "guidance", wider)
    told = "cannot be enforced: guidance does not know this model's vocabulary"
    assert tried(compilers, {"json": {"type": "array", "items": [{}]}}) == told


def test_a_clock_ends_no_trial(compilers: Compilers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_REGEX_COMPILATION_TIMEOUT_S", "1")
    params = SamplingParams(structured_outputs=StructuredOutputsParams(regex=".?" * 40))
    assert (
        apart(lambda: compilers.run(params), Limits(4))
        == "is too costly: compiling it takes over 4 s"
    )


def test_a_step_that_takes_too_long_is_told(
    compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_trial, "STEP_SECONDS", 0.0)
    told = "is too costly: finding the tokens it allows takes over 0 s a step"
    assert tried(compilers, {"regex": "[a-c]+"}) == told


def tried(compilers: Compilers, grammar: dict[str, Any], limits: Limits = LIMITS) -> str | None:
    params = SamplingParams(structured_outputs=StructuredOutputsParams(**grammar))
    return apart(lambda: compilers.run(params), limits)


def test_a_fork_tells_what_ended_it() -> None:
    def endless() -> None:
        while True:
            pass

    def greedy() -> str:
        return str(len(bytearray(1 << 30)))

    def failing() -> None:
        raise AttributeError("a defect")

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    assert apart(lambda: None, LIMITS) is None
    assert apart(lambda: "is none: \udc80é", LIMITS) == "is none: ?é"
    assert apart(failing, LIMITS) == "cannot be compiled: the compiler fails"
    assert apart(endless, Limits(1)) == "is too costly: compiling it takes over 1 s"
    assert apart(greedy, LIMITS) == "is too costly: compiling it takes over 256 MiB"
    assert apart(os.abort, LIMITS) == "is too costly: compiling it takes over 256 MiB"
    assert apart(killed, LIMITS) == "cannot be compiled: the compiler ends with SIGSEGV"


def test_a_fork_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def prints() -> None:
        os.write(2, b"a client's grammar")

    assert apart(prints, LIMITS) is None
    assert capfd.readouterr() == ("", "")


class Counting:
    """A grammar of four tokens that allows token 2 alone, so many times."""

    def __init__(self, length: int) -> None:
        self.left = length
        self.taken: list[int] = []

    def allocate_token_bitmask(self, count: int) -> torch.Tensor:
        return torch.full((count, 1), -1, dtype=torch.int32)

    def fill_bitmask(self, mask: torch.Tensor, at: int) -> None:
        mask[at] = 1 << 2

    def accept_tokens(self, _: str, tokens: list[int]) -> bool:
        self.taken += tokens
        self.left -= 1
        return self.left >= 0

    def is_terminated(self) -> bool:
        return self.left == 0


@pytest.mark.parametrize(("length", "steps"), [(1, 1), (3, 3), (100, grammar_trial.STEPS)])
def test_a_grammar_is_followed_along_tokens_that_it_allows(length: int, steps: int) -> None:
    grammar: Any = Counting(length)
    assert len(list(follow(grammar, grammar))) == steps
    assert grammar.taken == [2] * steps


def test_a_trial_dies_with_the_process_that_makes_it(tmp_path: Path) -> None:
    """Also where that one is killed, and can end nothing itself."""
    script = """
import os, sys, time
from pathlib import Path
from service.engine.grammar_trial import Limits, apart

def work():
    told = Path(sys.argv[1])
    told.with_suffix(".new").write_text(str(os.getpid()))
    told.with_suffix(".new").rename(told)
    while True:
        time.sleep(60)

apart(work, Limits(1))
"""
    told = tmp_path / "trial"
    maker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, told])
    wait_for(told.exists)
    trial = int(told.read_text())
    assert is_alive(trial)
    maker.kill()
    maker.wait()
    wait_for(lambda: not is_alive(trial))
