"""Text patterns in the API process: their memory on the device, and their token sets."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern, pool_states
from logit_processors.program import Program
from logit_processors.vocabulary import Vocabulary
from service.errors import BadRequestError, SaturatedError
from service.metrics import PATTERN_BYTES

_KEPT_BYTES = 64 << 20
"""Memory for cached token sets of earlier patterns."""


class Patterns:
    """The text patterns of this process's requests.

    Args:
        vocabulary: the model's vocabulary.
        shares: number of API processes that share the engine's pool of patterns; None for a
            runner without a pool (V1 matches patterns on the host).

    """

    def __init__(self, vocabulary: Vocabulary, shares: int | None) -> None:
        self.limit = pool_states(vocabulary.width) // (shares or 1)
        self._vocabulary = vocabulary
        self._is_pooled = shares is not None
        self._users: Counter[Pattern] = Counter()
        self._bytes = 0
        self._compiled: OrderedDict[Pattern, CompiledPattern] = OrderedDict()
        self._compiled_bytes = 0
        # One thread: more would only take the interpreter from the event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="patterns")
        # Sorting the vocabulary blocks the process, so it is done before the first request.
        for ignore_case in (False, True):
            self._thread.submit(vocabulary.index(ignore_case=ignore_case).prepare)

    @contextmanager
    def hold(self, program: Program) -> Iterator[None]:
        """Reserve device memory for a program's patterns for as long as the context lasts.

        Raises:
            BadRequestError: more than one request may have.
            SaturatedError: more than is free now.

        """
        if program.pattern_bytes > self.limit:
            raise BadRequestError(
                f"text patterns of {program.pattern_bytes} bytes are too many; allowed: "
                f"{self.limit} bytes in one request",
                "logit_control",
            )
        patterns = set(program.patterns)
        new = sum(len(pattern) for pattern in patterns if pattern not in self._users)
        if self._is_pooled and self._bytes + new > self.limit:
            raise SaturatedError(
                f"text patterns need {new} bytes of the engine's room for patterns and "
                f"{self.limit - self._bytes} are left now; try again later",
                "logit_control",
                SaturatedError.PATTERNS_FULL,
            )
        self._users.update(patterns)
        self._move(new)
        try:
            yield
        finally:
            self._users.subtract(patterns)
            self._users = +self._users
            self._move(-sum(len(pattern) for pattern in patterns if pattern not in self._users))

    def _move(self, size: int) -> None:
        self._bytes += size
        PATTERN_BYTES.set(self._bytes)

    async def compile(self, program: Program) -> tuple[CompiledPattern, ...]:
        """Return the token sets of a program's patterns, computed in a thread, one at a time."""
        return tuple([await self._one(pattern) for pattern in program.patterns])

    async def _one(self, pattern: Pattern) -> CompiledPattern:
        compiled = self._compiled.get(pattern)
        if compiled is None:
            compiled = await asyncio.get_running_loop().run_in_executor(
                self._thread, CompiledPattern.of, pattern, self._vocabulary
            )
            self._keep(compiled)
        self._compiled.move_to_end(pattern)
        return compiled

    def _keep(self, compiled: CompiledPattern) -> None:
        if compiled.pattern not in self._compiled:
            self._compiled[compiled.pattern] = compiled
            self._compiled_bytes += compiled.nbytes
        while self._compiled_bytes > _KEPT_BYTES and len(self._compiled) > 1:
            self._compiled_bytes -= self._compiled.popitem(last=False)[1].nbytes
