"""Corrected answers of vLLM's own routes.

The classes override methods of vLLM's serving classes that its routes call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from openai.types.responses import ResponseIncompleteEvent
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesResponse
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.responses.protocol import ResponsesResponse
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.serve.tokenize.serving import ServingTokenization

from service.api.adopting import Adopting
from service.api.held_back import WholeAtTheEnd, same_reasons, without_loss
from service.api.messages import raising
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
    """An answer with ``stop_sequence: null`` if no stop sequence ended it, like Anthropic's."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the answer as a dict that always has ``stop_sequence``."""
        return {"stop_sequence": None, **super().model_dump(**options)}


class IncompleteEvent(ResponseIncompleteEvent):
    """The last event of a response that was cut short."""

    response: ResponsesResponse


class MessagesServing(Adopting, AnthropicServingMessages):
    """``/v1/messages``."""

    async def create_messages(self, *args: Any, **kwargs: Any) -> Any:
        """Return vLLM's answer; a whole one gets ``stop_sequence``."""
        answer = await super().create_messages(*args, **kwargs)
        if isinstance(answer, AnthropicMessagesResponse):
            return MessagesAnswer(**dict(answer))
        return answer

    def chat_completion_stream_generator(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Stream vLLM's chunks, without loss of text that a tool parser holds back."""
        twin, parsers = without_loss(self)
        chunks = super(MessagesServing, twin).chat_completion_stream_generator(
            request, *args, **kwargs
        )
        return same_reasons(chunks, parsers, request, auto=self.enable_auto_tools)

    def message_stream_converter(self, chunks: AsyncGenerator[str, None]) -> Any:
        """Convert a chat's stream; its error reaches the client unchanged."""
        return super().message_stream_converter(raising(chunks))


class ResponsesServing(Adopting, OpenAIServingResponses):
    """``/v1/responses``."""

    async def create_responses(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Return vLLM's answer; refuse tools that this server does not have."""
        check_tools(request, self)
        answer = await super().create_responses(request, *args, **kwargs)
        return truthful(answer) if isinstance(answer, AsyncGenerator) else answer

    async def retrieve_responses(self, *args: Any, **kwargs: Any) -> Any:
        """Return a stored answer as vLLM does."""
        answer = await super().retrieve_responses(*args, **kwargs)
        return truthful(answer) if isinstance(answer, AsyncGenerator) else answer

    def _make_response_parser(self, *args: Any, **kwargs: Any) -> Any:
        make = super()._make_response_parser
        parser = make(*args, **kwargs)
        if parser is None or self.parser.tool_parser_cls is None:
            return parser
        return WholeAtTheEnd(parser, lambda: make(*args, **kwargs), auto=self.enable_auto_tools)


class TokensServing(Adopting, ServingTokenization):
    """``/tokenize`` and ``/detokenize``."""

    vocab_size: int

    async def create_detokenize(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Return vLLM's answer; refuse ids that are not in the vocabulary."""
        check_tokens(request.tokens, self.vocab_size, "tokens")
        return await super().create_detokenize(request, *args, **kwargs)


def serve_mended(state: Any, vocab_size: int) -> None:
    """Make vLLM's routes use the classes above.

    Args:
        state: the application's state, which holds the serving objects of vLLM's routes.
        vocab_size: size of the vocabulary.

    """
    if state.anthropic_serving_messages is not None:
        stock = state.anthropic_serving_messages
        state.anthropic_serving_messages = MessagesServing.adopt(stock)
    if state.openai_serving_responses is not None:
        stock = state.openai_serving_responses
        state.openai_serving_responses = ResponsesServing.adopt(stock)
    state.serving_tokenization = TokensServing.adopt(state.serving_tokenization)
    state.serving_tokenization.vocab_size = vocab_size


async def truthful(events: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Pass a response's events on; the last is ``response.incomplete`` if it was cut short."""
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
        BadRequestError: this server does not have a tool, or has no parser for tool calls.

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
