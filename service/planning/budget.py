"""The byte budget of distributions: running requests reserve the memory of their rows."""

from __future__ import annotations

from service.errors import BadRequestError, SaturatedError
from service.metrics import PROMISED_BYTES

BASE64_COPIES = 4
"""Copies of a row's bytes in memory while a whole answer is encoded: kept rows, their array, its
base64 (4/3) and the body (4/3)."""
JSON_BYTES_PER_NUMBER = 64
"""Memory of a number in a nested list: up to 16 characters in four copies."""
OPENAI_BYTES_PER_ENTRY = 160
"""Memory of an entry of OpenAI's logprobs: its number, and JSON of its text, bytes and number; an
echoed prompt's entry is encoded twice."""


class Budget:
    """Bytes that one request, and all requests together, may reserve."""

    def __init__(self, request_bytes: int, total_bytes: int) -> None:
        self.request_bytes = request_bytes
        self.total_bytes = total_bytes
        self.promised_bytes = 0

    def claim(self, size: int, param: str, held: int = 0) -> Claim:
        """Reserve ``size`` bytes; release the claim when the answer has been sent.

        Args:
            size: bytes to reserve.
            param: the field that needs them, for errors.
            held: bytes that the same request has reserved before.

        Raises:
            BadRequestError: more than one request may have.
            SaturatedError: more than is free now.

        """
        limit = min(self.request_bytes, self.total_bytes)
        if held + size > limit:
            raise BadRequestError(
                f"{param} asks for up to {held + size} bytes of rows; allowed: {limit} bytes a "
                "request. Ask for fewer tokens (max_tokens), a smaller top_k, or float16",
                param,
                "distribution_too_large",
            )
        if self.promised_bytes + size > self.total_bytes:
            raise SaturatedError(
                f"{param} asks for up to {size} bytes of rows and "
                f"{self.total_bytes - self.promised_bytes} are left now; try again later",
                param,
                SaturatedError.BUDGET_EXHAUSTED,
            )
        self.move(size)
        return Claim(self, size)

    def move(self, size: int) -> None:
        """Add ``size`` to the reserved bytes."""
        self.promised_bytes += size
        PROMISED_BYTES.set(self.promised_bytes)


class Claim:
    """A reservation of bytes; a second release does nothing."""

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget = budget
        self.size = size

    def release(self) -> None:
        """Free the bytes."""
        self._budget.move(-self.size)
        self.size = 0
