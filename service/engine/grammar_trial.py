"""A process that compiles each new grammar before the engine does, within limits.

vLLM's compilers have no limits: a few hundred bytes of grammar can take minutes and all memory,
first to be compiled and then at each token, while the whole batch waits. A trial runs in a fork of
an otherwise idle process, so that it can be killed without harm.
"""

from __future__ import annotations

import faulthandler
import os
import pkgutil
import random
import re
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
from vllm.v1.structured_output.backend_guidance import (
    GuidanceBackend,
    validate_guidance_grammar,
)
from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
    StructuredOutputOptions,
)
from vllm.v1.structured_output.request import get_structured_output_key

from service.engine.family import die_with_parent, end_with_parent
from service.engine.grammar_backends import enforcing
from service.engine.unenforced import unenforced
from service.errors import MAX_ECHO

MEMORY_BYTES = 1 << 30
STEPS = 32
"""Tokens for which a trial follows a grammar."""
STEP_SECONDS = 0.1
"""Most CPU time to find the tokens allowed next; the whole batch waits for it."""
_FAILED, _NO_MEMORY = 1, 4
_REFUSED = (VLLMError, ValueError, RuntimeError, TypeError, LookupError)
"""Exceptions of vLLM and its compilers for an invalid grammar."""
_PLACE_IN_SOURCE = re.compile(r"\[[\d:]+\] \S+:\d+: ")
"""The time and the source line before xgrammar's message."""
_BACKENDS = {
    "xgrammar": "backend_xgrammar:XgrammarBackend",
    "guidance": "backend_guidance:GuidanceBackend",
    "outlines": "backend_outlines:OutlinesBackend",
    "lm-format-enforcer": "backend_lm_format_enforcer:LMFormatEnforcerBackend",
}


@dataclass(frozen=True)
class Limits:
    """Limits of compiling a grammar and following its first tokens."""

    cpu_seconds: int
    memory_bytes: int = MEMORY_BYTES


def serve(questions: Connection, config: VllmConfig, limits: Limits) -> None:
    """Answer each SamplingParams with the fault of its grammar, or None, until the pipe closes."""
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


def apart(work: Callable[[], str | None], limits: Limits) -> str | None:
    """Run a function in a fork under limits; return its result, or the limit that ended it.

    Args:
        work: returns a fault, or None.
        limits: limits of the fork.

    """
    answer, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = _FAILED
        try:
            die_with_parent()
            _limit(limits)
            _hush()
            os.write(theirs, (work() or "").encode(errors="replace"))
            code = 0
        except MemoryError:
            code = _NO_MEMORY
        finally:
            os._exit(code)
    os.close(theirs)
    with open(answer, "rb") as read:
        said = read.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return said or None
    if code == -signal.SIGXCPU:
        return f"is too costly: compiling it takes over {limits.cpu_seconds} s"
    if code in (_NO_MEMORY, -signal.SIGABRT):
        return f"is too costly: compiling it takes over {limits.memory_bytes >> 20} MiB"
    if code == _FAILED:
        return "cannot be compiled: the compiler fails"
    return f"cannot be compiled: the compiler ends with {signal.Signals(-code).name}"


def _limit(limits: Limits) -> None:
    # Without this, vLLM's wall clock limit would fail on a busy machine.
    os.environ["VLLM_REGEX_COMPILATION_TIMEOUT_S"] = "0"
    with open("/proc/self/statm") as statm:
        data = int(statm.read().split()[5]) * resource.getpagesize()
    most = data + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))


def _hush() -> None:
    """Silence stdout and stderr: compilers print a grammar that they refuse, a client's text."""
    faulthandler.disable()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)


class Compilers:
    """The compilers that the engine may use, and trials of grammars with them."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._tokenizer = cached_tokenizer_from_config(model_config=config.model_config)
        self._wanted = config.structured_outputs_config.backend
        self._made = {name: self._make(name) for name in self._usual()}

    def run(self, params: SamplingParams) -> str | None:
        """Compile a grammar as the engine will and follow it for some tokens.

        Returns:
            The grammar's fault, or None.

        """
        assert params.structured_outputs is not None
        try:
            params._validate_structured_outputs(
                self._config.model_config, self._config.structured_outputs_config, self._tokenizer
            )
            return self._compile(params)
        except _REFUSED as error:
            return f"cannot be compiled: {_words(error)}"

    def _compile(self, params: SamplingParams) -> str | None:
        grammar = params.structured_outputs
        assert grammar is not None
        kind, text = get_structured_output_key(grammar)
        name = enforcing(grammar)
        passed_over = unenforced(kind, text) if grammar._backend == "xgrammar" else None
        first = "" if passed_over is None else f"xgrammar passes over {passed_over}, and "
        if passed_over is not None and name == "xgrammar":
            return f"cannot be enforced: {first}the server uses no other compiler"
        backend = self._made.get(name) or self._make(name)
        if self._wanted == "auto" and _mask_width(backend) != _mask_width(self._made["xgrammar"]):
            return f"cannot be enforced: {first}{name} does not know this model's vocabulary"
        if name != grammar._backend and (why := _refusal(params, kind, backend)) is not None:
            return f"cannot be enforced: {first}{why}"
        compiled = backend.compile_grammar(kind, text, params.all_stop_token_ids)
        if any(seconds > STEP_SECONDS for seconds in follow(compiled, backend)):
            cost = f"finding the tokens it allows takes over {STEP_SECONDS:g} s a step"
            return f"is too costly: {cost}"
        return None

    def _usual(self) -> list[str]:
        """Return the compilers that are created before the first grammar."""
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


def _mask_width(backend: StructuredOutputBackend) -> int:
    """Return the number of 32-bit integers in a compiler's mask; one engine has one width."""
    mask: Any = backend.allocate_token_bitmask(1)
    return int(mask.shape[1])


def _refusal(
    params: SamplingParams, kind: StructuredOutputOptions, backend: StructuredOutputBackend
) -> str | None:
    """Return why guidance does not compile a grammar that vLLM validated for another, or None."""
    assert isinstance(backend, GuidanceBackend)
    try:
        validate_guidance_grammar(params, backend.ll_tokenizer)
    except VLLMError as error:
        if kind == StructuredOutputOptions.STRUCTURAL_TAG:
            return "no other compiler takes such a tag"
        return f"guidance says: {_words(error)}"
    return None


def _words(error: Exception) -> str:
    """Return a compiler's message without its place in the compiler's own source."""
    message = str(error.args[0]) if error.args else type(error).__name__
    message = " ".join(_PLACE_IN_SOURCE.sub("", message).split())
    return message if len(message) <= MAX_ECHO else f"{message[:MAX_ECHO]}…"
