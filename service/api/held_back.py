"""Text that a tool parser holds back in a stream and never sends if it is no tool call.

vLLM's parsers hold back text that may become a tool call. At the end of a stream that text is
lost, and an incomplete call ends with another finish reason than the same answer has without
``stream``. This module parses the whole text again at the end, as without ``stream``, and sends
the rest of the content.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from copy import copy
from typing import Any

import orjson

from service.engine.vllm_http import DeltaMessage

_DATA = "data: "
_REASON = '"finish_reason":"'


def unsent(content: str, sent: str) -> str:
    """Return the rest of a content after the part that was sent; "" if they do not match."""
    return content[len(sent) :] if content.startswith(sent) else ""


def finish_reason(streamed: str, request: Any, *, called: bool, auto: bool) -> str:
    """Return the finish reason of the same answer without ``stream``.

    Args:
        streamed: the reason in the stream, which is ``tool_calls`` once a call has begun.
        request: the chat request, with ``tools`` and ``tool_choice``.
        called: whether the whole text has a call in it.
        auto: whether the server lets the model choose tools.

    """
    stopped = "stop" if streamed == "tool_calls" else streamed
    if request.tool_choice == "required":
        return "tool_calls" if stopped == "stop" else stopped
    chooses = auto and request.tools and request.tool_choice in (None, "auto")
    return "tool_calls" if chooses and called else stopped


class WholeAtTheEnd:
    """Wraps a vLLM parser; sends the text that it held back at the end of a choice.

    Args:
        parser: the choice's parser.
        fresh: creates a second parser, for the whole text.
        auto: whether the server lets the model choose tools.

    """

    def __init__(self, parser: Any, fresh: Callable[[], Any], *, auto: bool) -> None:
        self._parser = parser
        self._fresh = fresh
        self._auto = auto
        self._text = ""
        self._token_ids: list[int] = []
        self._sent = ""
        self.called = False
        """Once the choice has ended: True if the whole text has a call in it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def parse_delta(
        self,
        delta_text: str,
        delta_token_ids: list[int],
        request: Any,
        prompt_token_ids: list[int] | None = None,
        *,
        finished: bool,
    ) -> DeltaMessage | None:
        """Return the delta of vLLM's parser; the last one includes the text that it held back."""
        self._text += delta_text
        self._token_ids += delta_token_ids
        delta: DeltaMessage | None = self._parser.parse_delta(
            delta_text, delta_token_ids, request, prompt_token_ids, finished=finished
        )
        self._sent += (delta.content or "") if delta is not None else ""
        if not finished:
            return delta
        whole = self._fresh()
        if prompt_token_ids is not None:
            whole.set_prompt_token_ids(prompt_token_ids)
        _, content, calls = whole.parse(
            self._text, request, self._auto, model_output_token_ids=self._token_ids
        )
        self.called = bool(calls)
        if rest := unsent(content or "", self._sent):
            delta = delta if delta is not None else DeltaMessage()
            delta.content = (delta.content or "") + rest
        return delta


def without_loss(serving: Any) -> tuple[Any, list[WholeAtTheEnd]]:
    """Return a serving object that loses no text in a stream, and its parsers by choice.

    Args:
        serving: vLLM's serving object; if it parses tool calls, a copy for one stream is returned.

    """
    parsers: list[WholeAtTheEnd] = []
    if serving.parser_cls is None or serving.parser_cls.tool_parser_cls is None:
        return serving, parsers
    make = serving._make_parser

    def _make_parser(*args: Any, **kwargs: Any) -> WholeAtTheEnd:
        parser = WholeAtTheEnd(
            make(*args, **kwargs), lambda: make(*args, **kwargs), auto=serving.enable_auto_tools
        )
        parsers.append(parser)
        return parser

    twin = copy(serving)
    twin._make_parser = _make_parser
    return twin, parsers


async def same_reasons(
    chunks: AsyncIterator[str], parsers: Sequence[WholeAtTheEnd], request: Any, *, auto: bool
) -> AsyncGenerator[str, None]:
    """Pass a chat's events on; each choice gets the finish reason of the answer without stream."""
    async for chunk in chunks:
        if not parsers or _REASON not in chunk:
            yield chunk
            continue
        event = orjson.loads(chunk.removeprefix(_DATA))
        for choice in event.get("choices", ()):
            if streamed := choice.get("finish_reason"):
                called = parsers[choice["index"]].called
                reason = finish_reason(streamed, request, called=called, auto=auto)
                choice["finish_reason"] = reason
        yield f"{_DATA}{orjson.dumps(event).decode()}\n\n"
