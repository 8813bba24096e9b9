"""One request of the storm, and its allowed answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ARROW = "application/vnd.apache.arrow.stream"
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
SCORE, LENS = "/v1/score", "/v1/lens"
MASKS = ("allowed_token_ids", "bad_words", "min_tokens", "structured_outputs", "response_format")
"""Fields that forbid tokens: two of them may leave none."""


@dataclass(frozen=True)
class Shot:
    """A valid request.

    ``allowed`` are the statuses that may refuse it all the same: 404 where it names a vector that
    others delete meanwhile. ``patience`` is after how many seconds its client leaves.
    """

    number: int
    path: str
    body: Mapping[str, Any] | bytes | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[int] = frozenset()
    patience: float | None = None

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of a JSON body."""
        return self.body if isinstance(self.body, Mapping) else {}

    @property
    def may_end_in_error(self) -> bool:
        """Say whether its own fields may leave a row no token: then it alone ends with an error."""
        control = self.fields.get("logit_control") or {}
        masks = sum(bool(self.fields.get(name)) for name in MASKS)
        # Scored tokens are forced.
        masks += bool(control.get("force")) or self.path == SCORE
        masks += bool(control.get("suppress"))
        masks += self.fields.get("tool_choice") not in (None, "none", "auto")
        return masks > 1

    def shown(self) -> str:
        """Return it as a line of JSON."""
        body = f"{len(self.body)} bytes" if isinstance(self.body, bytes) else self.body
        shown = {"number": self.number, "request": f"{self.method} {self.path}", "body": body}
        if "accept" in self.headers:
            shown["accept"] = self.headers["accept"]
        if self.patience is not None:
            shown["leaves after seconds"] = self.patience
        return json.dumps(shown, ensure_ascii=False)
