"""Text that a tool parser holds back in a stream, and never sends where no call comes of it.

vLLM's parsers keep what may become a call. At the end of a stream that text is lost, and a call
that was cut ends with another reason than the same answer has without ``stream``. Here the whole
text is parsed once more at the end, as without ``stream``, and the rest of its content is sent.
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
    """Return the end of a content of which the beginning was sent, or nothing if another was."""
    return content[len(sent) :] if content.startswith(sent) else ""


def finish_reason(told: str, request: Any, *, called: bool, auto: bool) -> str:
    """Return the reason that an answer without ``stream`` ends with.

    Args:
        told: the reason in the stream, which is ``tool_calls`` once a call has begun.
        request: the chat's, with ``tools`` and ``tool_choice``.
        called: whether the whole text has a call in it.
        auto: whether the server lets the model choose tools.

    """
    stopped = "stop" if told == "tool_calls" else told
    if request.tool_choice == "required":
        return "tool_calls" if stopped == "stop" else stopped
    chooses = auto and request.tools and request.tool_choice in (None, "auto")
    return "tool_calls" if chooses and called else stopped


class WholeAtTheEnd:
    """One of vLLM's parsers that sends at the end of a choice what it held back.

    Args:
        parser: of the choice.
        fresh: makes another one, for the whole text.
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
        """Whether the whole text has a call in it, once the choice has ended."""

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
        """Return what vLLM's parser sends now, at the end with the text that it holds back."""
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


def told_whole(serving: Any) -> tuple[Any, list[WholeAtTheEnd]]:
    """Return a chat's serving object that loses no text in a stream, and its parsers by choice.

    Args:
        serving: vLLM's; a copy is returned where it finds calls, for one stream.

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
    """Pass a chat's events on, each choice ended with the reason of its whole answer."""
    async for chunk in chunks:
        if not parsers or _REASON not in chunk:
            yield chunk
            continue
        event = orjson.loads(chunk.removeprefix(_DATA))
        for choice in event.get("choices", ()):
            if told := choice.get("finish_reason"):
                called = parsers[choice["index"]].called
                choice["finish_reason"] = finish_reason(told, request, called=called, auto=auto)
        yield f"{_DATA}{orjson.dumps(event).decode()}\n\n"
