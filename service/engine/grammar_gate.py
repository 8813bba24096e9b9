"""The gate that tries every grammar in a separate process before it reaches the engine."""

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
"""Number of grammars whose outcome is cached."""
START_SECONDS = 300.0
_UNTRIED: Any = object()
WALL_FACTOR = 15
"""Wall time limit of a trial, as a multiple of its CPU time limit: the machine may be busy."""


class GrammarGate:
    """Tries each new grammar in a separate process, which is started for the first one.

    Args:
        config: vLLM's config, with the compilers to try.
        limits: limits of a grammar.
        tenant: returns the tenant of the running task's request.
        field: returns the field of that request with its grammar.

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
        # One trial at a time on its own thread. Each tenant may queue only one, so that no
        # tenant delays another by more than one trial.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="grammar-gate")
        self._turns: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._process: BaseProcess | None = None
        self._questions: Connection | None = None

    async def check(self, params: SamplingParams) -> None:
        """Return if the engine can compile and enforce a grammar within the limits.

        Raises:
            VLLMValidationError: the engine cannot; ``parameter`` names the field.
            RetryableRequestError: the trial took too long.

        """
        key = hashlib.blake2b(pickle.dumps(params.structured_outputs)).digest()
        # A cached outcome does not wait for a running trial.
        outcome = self._outcome(key)
        if outcome is _UNTRIED:
            loop = asyncio.get_running_loop()
            async with self._turns[self._tenant()]:
                # Another request may have tried the same grammar meanwhile.
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
    """A step that tries a request's grammar before the engine gets it."""

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
