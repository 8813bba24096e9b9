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

from service.engine import grammar_trial
from service.engine.family import is_alive
from service.engine.grammar_trial import Compilers, Limits, apart, follow
from tests.waiting import wait_for

# vLLM's call of xgrammar.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")

LIMITS = Limits(cpu_seconds=2, memory_bytes=1 << 28)
TAG = {
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
    {"json_object": True},
    {"grammar": 'root ::= "a" root | "b"'},
    {"structural_tag": json.dumps(TAG)},
    {"regex": "[a"},  # none at all, which the client is told elsewhere
]
CHAIN = "\n".join(f"r{at} ::= r{at + 1} | [a-z] r{at + 1}" for at in range(500))
COSTLY: list[tuple[dict[str, Any], str]] = [
    ({"regex": ".?" * 40}, "compiling it takes over 2 s"),
    ({"grammar": f'root ::= r0\n{CHAIN}\nr500 ::= "x"'}, "compiling it takes over 2 s"),
    (
        {"json": {"type": "array", "items": {"type": "string"}, "maxItems": 10**6}},
        "compiling it takes over 256 MiB",
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


def test_a_clock_ends_no_trial(compilers: Compilers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_REGEX_COMPILATION_TIMEOUT_S", "1")
    params = SamplingParams(structured_outputs=StructuredOutputsParams(regex=".?" * 40))
    assert apart(lambda: compilers.run(params), Limits(4)) == "compiling it takes over 4 s"


def test_a_step_that_takes_too_long_is_told(
    compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_trial, "STEP_SECONDS", 0.0)
    told = "finding the tokens it allows takes over 0 s a step"
    assert tried(compilers, {"regex": "[a-c]+"}) == told


def tried(compilers: Compilers, grammar: dict[str, Any], limits: Limits = LIMITS) -> str | None:
    params = SamplingParams(structured_outputs=StructuredOutputsParams(**grammar))
    return apart(lambda: compilers.run(params), limits)


def test_a_fork_tells_what_ended_it() -> None:
    def endless() -> int:
        while True:
            pass

    def greedy() -> int:
        return len(bytearray(1 << 30))

    def failing() -> int:
        raise AttributeError("a defect")

    def killed() -> int:
        os.kill(os.getpid(), signal.SIGSEGV)
        return 0

    assert apart(lambda: 0, LIMITS) is None
    assert apart(failing, LIMITS) == "compiling it fails"
    assert apart(endless, Limits(1)) == "compiling it takes over 1 s"
    assert apart(greedy, LIMITS) == "compiling it takes over 256 MiB"
    assert apart(os.abort, LIMITS) == "compiling it takes over 256 MiB"
    assert apart(killed, LIMITS) == "compiling it ends with SIGSEGV"


def test_a_fork_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert apart(lambda: os.write(2, b"a client's grammar") - 18, LIMITS) is None
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
