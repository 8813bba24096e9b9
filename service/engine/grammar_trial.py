"""A process that compiles each new grammar before the engine does, within limits.

vLLM's compilers have none: a few hundred bytes of grammar can take minutes and all memory, first
to be compiled and then at each token, when the whole batch waits. A trial is a fork of a process
that has done nothing else, so whatever a grammar does to it ends with it.
"""

from __future__ import annotations

import faulthandler
import os
import pkgutil
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from vllm.config import VllmConfig
from vllm.exceptions import VLLMError
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.backend_guidance import GuidanceBackend
from vllm.v1.structured_output.backend_types import StructuredOutputBackend, StructuredOutputGrammar
from vllm.v1.structured_output.request import get_structured_output_key

from service.engine.family import die_with_parent, end_with_parent

MEMORY_BYTES = 1 << 30
STEPS = 32
"""Tokens after which a grammar has been seen at work."""
STEP_SECONDS = 0.1
"""Most CPU time in which the tokens allowed next may be found: the whole batch waits for it."""
_FAILED, _SLOW_STEP, _NO_MEMORY = 1, 3, 4
_REFUSED = (VLLMError, ValueError, RuntimeError, TypeError, LookupError)
"""What vLLM and its compilers raise for a grammar that is none, which the client is told later."""
_BACKENDS = {
    "xgrammar": "backend_xgrammar:XgrammarBackend",
    "guidance": "backend_guidance:GuidanceBackend",
    "outlines": "backend_outlines:OutlinesBackend",
    "lm-format-enforcer": "backend_lm_format_enforcer:LMFormatEnforcerBackend",
}


@dataclass(frozen=True)
class Limits:
    """What a grammar may take until it has allowed its first tokens."""

    cpu_seconds: int
    memory_bytes: int = MEMORY_BYTES


def serve(questions: Connection, config: VllmConfig, limits: Limits) -> None:
    """Answer each SamplingParams with what is wrong with its grammar, or None, until the end."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)  # the engine and the API go first
    compilers = Compilers(config)
    questions.send(None)
    while True:
        try:
            params = questions.recv()
        except EOFError:
            return
        questions.send(apart(partial(compilers.run, params), limits))


def apart(work: Callable[[], int], limits: Limits) -> str | None:
    """Do work in a fork under limits; return which of them ended it, or None.

    Args:
        work: returns the fork's exit code.
        limits: on the fork.

    """
    child = os.fork()
    if child == 0:
        code = _FAILED
        try:
            die_with_parent()
            _limit(limits)
            _hush()
            code = work()
        except MemoryError:
            code = _NO_MEMORY
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return None
    if code == _SLOW_STEP:
        return f"finding the tokens it allows takes over {STEP_SECONDS:g} s a step"
    if code == -signal.SIGXCPU:
        return f"compiling it takes over {limits.cpu_seconds} s"
    if code in (_NO_MEMORY, -signal.SIGABRT):
        return f"compiling it takes over {limits.memory_bytes >> 20} MiB"
    if code == _FAILED:
        return "compiling it fails"
    return f"compiling it ends with {signal.Signals(-code).name}"


def _limit(limits: Limits) -> None:
    # By the clock of a busy machine vLLM would give up on what the engine may yet compile.
    os.environ["VLLM_REGEX_COMPILATION_TIMEOUT_S"] = "0"
    with open("/proc/self/statm") as statm:
        data = int(statm.read().split()[5]) * resource.getpagesize()
    most = data + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))


def _hush() -> None:
    """Print nothing more: compilers print a grammar that they refuse, and it is a client's."""
    faulthandler.disable()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)


class Compilers:
    """The compilers that the engine may use for a grammar, and how each does with it."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._tokenizer = cached_tokenizer_from_config(model_config=config.model_config)
        self._wanted = config.structured_outputs_config.backend
        self._made = {name: self._make(name) for name in self._usual()}

    def run(self, params: SamplingParams) -> int:
        """Compile a grammar and follow it for some tokens; return an exit code."""
        assert params.structured_outputs is not None
        try:
            params._validate_structured_outputs(
                self._config.model_config, self._config.structured_outputs_config, self._tokenizer
            )
        except _REFUSED:
            return 0
        chosen = str(params.structured_outputs._backend)
        made = self._made
        if chosen not in made:
            made = {**made, chosen: self._make(chosen)}
        kind, text = get_structured_output_key(params.structured_outputs)
        for backend in made.values():
            try:
                grammar = backend.compile_grammar(kind, text, params.all_stop_token_ids)
            except _REFUSED:
                continue
            if any(seconds > STEP_SECONDS for seconds in follow(grammar, backend)):
                return _SLOW_STEP
        return 0

    def _usual(self) -> list[str]:
        """Return the backends to try each grammar on.

        With "auto" the engine stays with the backend that its first grammar needed, whatever the
        later ones are.
        """
        if self._wanted != "auto":
            return [self._wanted]
        usable = GuidanceBackend.is_tokenizer_supported(self._tokenizer)
        return ["xgrammar", "guidance"] if usable else ["xgrammar"]

    def _make(self, name: str) -> StructuredOutputBackend:
        kind = pkgutil.resolve_name(f"vllm.v1.structured_output.{_BACKENDS[name]}")
        width = self._config.model_config.get_vocab_size()
        made: StructuredOutputBackend = kind(
            self._config, tokenizer=self._tokenizer, vocab_size=width
        )
        return made


def follow(grammar: StructuredOutputGrammar, backend: StructuredOutputBackend) -> Iterator[float]:
    """Yield the CPU seconds of finding the allowed tokens, along tokens drawn from them."""
    draws = random.Random(0)
    mask: Any = backend.allocate_token_bitmask(1)
    for _ in range(STEPS):
        before = time.thread_time()
        grammar.fill_bitmask(mask, 0)
        yield time.thread_time() - before
        allowed = np.flatnonzero(np.unpackbits(mask.numpy().view(np.uint8), bitorder="little"))
        if not allowed.size or not grammar.accept_tokens("trial", [int(draws.choice(allowed))]):
            return
        if grammar.is_terminated():
            return
