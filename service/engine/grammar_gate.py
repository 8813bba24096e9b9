"""No grammar comes to the engine that was not tried before, in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import pickle
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from cachetools import LRUCache
from vllm.exceptions import RetryableRequestError, VLLMValidationError
from vllm.sampling_params import SamplingParams

from service.engine.engine import Generate, Outputs
from service.engine.grammar_trial import Limits, serve

FIELD = "structured_outputs"
KNOWN = 4096
"""Grammars whose outcome is remembered."""
START_SECONDS = 300.0
_UNTRIED: Any = object()
WALL_FACTOR = 15
"""How much longer than its CPU seconds a trial may last, on a machine that is busy."""


class GrammarGate:
    """Asks a process of its own, started for the first grammar, what each new one takes.

    Args:
        config: vLLM's, whose compilers are tried.
        limits: on a grammar.
        tenant: tells whose request the running task works on.
        field: tells the field of that request which holds its grammar.

    """

    def __init__(
        self,
        config: Any,
        limits: Limits,
        tenant: Callable[[], str | None] = lambda: None,
        field: Callable[[], str] = lambda: FIELD,
    ) -> None:
        self._config = config
        self._limits = limits
        self._tenant = tenant
        self._field = field
        self._known: LRUCache[bytes, str | None] = LRUCache(KNOWN)
        self._lock = threading.Lock()
        # One at a time, on threads that nothing else waits for; of a tenant one waits there, so
        # that whoever sends many holds up another for one.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="grammar-gate")
        self._turns: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._process: BaseProcess | None = None
        self._questions: Connection | None = None

    async def check(self, params: SamplingParams) -> None:
        """Return if the engine can compile and enforce a grammar within the limits.

        Raises:
            VLLMValidationError: it cannot; ``parameter`` names the field.
            RetryableRequestError: the trial was not over in time.

        """
        key = hashlib.blake2b(pickle.dumps(params.structured_outputs)).digest()
        # What is known does not wait for a trial that is under way.
        outcome = self._outcome(key)
        if outcome is _UNTRIED:
            loop = asyncio.get_running_loop()
            async with self._turns[self._tenant()]:
                # Another request with the same one may have had the turn before.
                outcome = self._outcome(key)
                if outcome is _UNTRIED:
                    outcome = await loop.run_in_executor(self._asking, self._try, key, params)
        if outcome is not None:
            raise VLLMValidationError(f"the grammar {outcome}", parameter=self._field())

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._questions is not None:
            self._questions.close()
            self._process.kill()
            self._process.join()
        self._process = self._questions = None

    def _outcome(self, key: bytes) -> str | None:
        with self._lock:
            return self._known.get(key, _UNTRIED)

    def _try(self, key: bytes, params: SamplingParams) -> str | None:
        outcome = self._outcome(key)
        if outcome is _UNTRIED:
            outcome = self._ask(params)
            with self._lock:
                self._known[key] = outcome
        return outcome

    def _ask(self, params: SamplingParams) -> str | None:
        questions = self._questions or self._start()
        try:
            questions.send(params)
            if questions.poll(self._limits.cpu_seconds * WALL_FACTOR):
                outcome: str | None = questions.recv()
                return outcome
        except (EOFError, OSError):
            pass
        self.close()
        raise RetryableRequestError("the grammar could not be tried in time; send it again")

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._questions, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, self._config, self._limits), daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            if self._questions.poll(START_SECONDS):
                self._questions.recv()
                return self._questions
        except (EOFError, OSError):
            pass
        self.close()
        raise RetryableRequestError(
            "the process that tries grammars has not started; send it again"
        )


class TriedGrammars:
    """Step that has a request's grammar tried before the engine sees it."""

    def __init__(self, gate: GrammarGate) -> None:
        self._gate = gate

    def __call__(
        self, generate: Generate, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate at once, or after the trial of the grammar."""
        if getattr(params, FIELD, None) is None:
            return generate(prompt, params, *args, **kwargs)
        return self._tried(generate, prompt, params, *args, **kwargs)

    async def _tried(
        self, generate: Generate, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Outputs:
        await self._gate.check(params)
        async with aclosing(generate(prompt, params, *args, **kwargs)) as outputs:
            async for output in outputs:
                yield output
