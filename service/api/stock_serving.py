"""Answers of vLLM's own routes, mended where a client would be misled.

vLLM's serving objects stay as they are, but for the methods that its routes call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from openai.types.responses import ResponseIncompleteEvent
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesResponse
from vllm.entrypoints.openai.responses.protocol import ResponsesResponse

from service.api.held_back import WholeAtTheEnd, same_reasons, told_whole
from service.api.prompts import check_tokens
from service.errors import BadRequestError, echo

_SHOWN_TO_THE_MODEL = {"function", "custom", "namespace"}
_RUN_BY_SERVER = {
    "web_search_preview": "browser",
    "code_interpreter": "python",
    "container": "container",
}
"""Kinds of tools that vLLM's tool server runs, by its names of them."""


class MessagesAnswer(AnthropicMessagesResponse):
    """An answer that says null where no stop sequence ended it, as Anthropic's own does."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the answer as JSON has it, ``stop_sequence`` always in it."""
        return {"stop_sequence": None, **super().model_dump(**options)}


class IncompleteEvent(ResponseIncompleteEvent):
    """The last event of a response that was cut short."""

    response: ResponsesResponse


def mend(state: Any, vocab_size: int) -> None:
    """Mend the answers of ``/v1/messages``, ``/v1/responses`` and ``/detokenize``.

    Args:
        state: the application's, with vLLM's serving objects in it.
        vocab_size: tokens that there are.

    """
    _mend_messages(state.anthropic_serving_messages)
    _mend_responses(state.openai_serving_responses)
    _mend_detokenize(state.serving_tokenization, vocab_size)


def _mend_messages(serving: Any) -> None:
    if serving is None:
        return
    stock = serving.create_messages
    kind = type(serving)

    async def create_messages(*args: Any, **kwargs: Any) -> Any:
        answer = await stock(*args, **kwargs)
        if isinstance(answer, AnthropicMessagesResponse):
            return MessagesAnswer(**dict(answer))
        return answer

    def chat_completion_stream_generator(request: Any, *args: Any, **kwargs: Any) -> Any:
        twin, parsers = told_whole(serving)
        chunks = kind.chat_completion_stream_generator(twin, request, *args, **kwargs)
        return same_reasons(chunks, parsers, request, auto=serving.enable_auto_tools)

    serving.create_messages = create_messages
    serving.chat_completion_stream_generator = chat_completion_stream_generator


def _mend_responses(serving: Any) -> None:
    if serving is None:
        return
    create, retrieve = serving.create_responses, serving.retrieve_responses
    make = serving._make_response_parser

    async def create_responses(request: Any, *args: Any, **kwargs: Any) -> Any:
        check_tools(request, serving)
        answer = await create(request, *args, **kwargs)
        return truthful(answer) if isinstance(answer, AsyncGenerator) else answer

    async def retrieve_responses(*args: Any, **kwargs: Any) -> Any:
        answer = await retrieve(*args, **kwargs)
        return truthful(answer) if isinstance(answer, AsyncGenerator) else answer

    def _make_response_parser(*args: Any, **kwargs: Any) -> Any:
        parser = make(*args, **kwargs)
        if parser is None or serving.parser.tool_parser_cls is None:
            return parser
        return WholeAtTheEnd(parser, lambda: make(*args, **kwargs), auto=serving.enable_auto_tools)

    serving.create_responses = create_responses
    serving._make_response_parser = _make_response_parser
    serving.retrieve_responses = retrieve_responses


def _mend_detokenize(serving: Any, vocab_size: int) -> None:
    stock = serving.create_detokenize

    async def create_detokenize(request: Any, *args: Any, **kwargs: Any) -> Any:
        check_tokens(request.tokens, vocab_size, "tokens")
        return await stock(request, *args, **kwargs)

    serving.create_detokenize = create_detokenize


async def truthful(events: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Pass a response's events on, the last one ``response.incomplete`` if it was cut short."""
    async with aclosing(events):
        async for event in events:
            if event.type == "response.completed" and event.response.status == "incomplete":
                yield IncompleteEvent(
                    type="response.incomplete",
                    sequence_number=event.sequence_number,
                    response=event.response,
                )
            else:
                yield event


def check_tools(request: Any, serving: Any) -> None:
    """Refuse tools that the model would not see, or whose calls would stay text.

    Args:
        request: vLLM's ResponsesRequest.
        serving: vLLM's serving object of responses.

    Raises:
        BadRequestError: a tool that this server has not, or no parser for calls.

    """
    if serving.use_harmony or request.tool_choice == "none":
        return
    tools = request.tools or []
    for at, tool in enumerate(tools):
        if tool.type in _SHOWN_TO_THE_MODEL or _is_run(tool.type, serving.tool_server):
            continue
        raise BadRequestError(
            f"{echo(tool.type)} is no tool of this server; allowed: function", f"tools[{at}].type"
        )
    parser = None if serving.parser is None else serving.parser.tool_parser_cls
    is_auto = request.tool_choice == "auto"
    if tools and (parser is None or (is_auto and not serving.enable_auto_tools)):
        raise BadRequestError(
            "this server finds no calls in the model's text: it was started without "
            "--enable-auto-tool-choice and --tool-call-parser",
            "tools",
        )


def _is_run(kind: str, tool_server: Any) -> bool:
    if tool_server is None:
        return False
    return kind == "mcp" or (kind in _RUN_BY_SERVER and tool_server.has_tool(_RUN_BY_SERVER[kind]))
