"""The byte budget of distributions: what is promised to running requests, and no more."""

from __future__ import annotations

from service.errors import BadRequestError, SaturatedError
from service.metrics import PROMISED_BYTES

BASE64_COPIES = 4
"""Times a row's bytes are in memory at once when a whole answer is encoded: kept rows, the
array they become, its base64 (4/3) and the body (4/3)."""
JSON_BYTES_PER_NUMBER = 64
"""A number of a nested list in memory: up to 16 characters, and four copies of them at once."""
OPENAI_BYTES_PER_ENTRY = 160
"""An entry of OpenAI's logprobs in memory: its number, and JSON of its text, bytes and number; of
an echoed prompt it is written twice."""


class Budget:
    """Bytes that may be promised, to one request and to all together."""

    def __init__(self, request_bytes: int, total_bytes: int) -> None:
        self.request_bytes = request_bytes
        self.total_bytes = total_bytes
        self.promised_bytes = 0

    def claim(self, size: int, param: str, held: int = 0) -> Claim:
        """Promise ``size`` bytes; release the claim when the answer has been sent.

        Args:
            size: of what is asked for.
            param: the field that asks.
            held: bytes that were promised to the same request before.

        Raises:
            BadRequestError: more than one request may ever have.
            SaturatedError: more than is left now.

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
        """Take down that so many bytes more are promised."""
        self.promised_bytes += size
        PROMISED_BYTES.set(self.promised_bytes)


class Claim:
    """A promise of bytes; releasing it twice does nothing more."""

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget = budget
        self.size = size

    def release(self) -> None:
        """Give the bytes back."""
        self._budget.move(-self.size)
        self.size = 0
