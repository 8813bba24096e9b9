"""vLLM's serving classes; rows are taken out before vLLM's code and put in after it.

Everything else (templates, tools, reasoning, streaming) is vLLM's own. Each object is a copy of
vLLM's, so it serves with the same settings.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any, Self

from fastapi import Request
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

from logit_processors.row_spec import DENSE
from service.api.adopting import Adopting
from service.api.echoes import echo_is_lost, keep_prompt_only, with_prompts
from service.api.held_back import same_reasons, without_loss
from service.api.requests import ChatRequest, TextRequest
from service.api.rows_tap import RowCollector
from service.api.text_logprobs import TextLogprobs
from service.distributions.token_texts import TokenTexts
from service.engine.vllm_http import ErrorResponse
from service.engine.vllm_requests import RequestOutput
from service.pieces import Later, in_slices, json_list, json_pieces


class _WithTexts(Adopting):
    """A serving object with the texts of tokens."""

    texts: TokenTexts

    @classmethod
    def with_texts(cls, stock: object, texts: TokenTexts) -> Self:
        """Return an object with the settings of ``stock``."""
        serving = cls.adopt(stock)
        serving.texts = texts
        return serving


class ChatServing(_WithTexts, OpenAIServingChat):
    """Chat completions with rows."""

    async def answer(self, request: ChatRequest, raw_request: Request) -> Any:
        """Return a stream, an error, or a whole answer as JSON in pieces."""
        return await _written(await self.create_chat_completion(request, raw_request))

    async def chat_completion_stream_generator(
        self,
        request: ChatRequest,
        result_generator: AsyncIterator[RequestOutput],
        request_id: str,
        model_name: str,
        conversation: Sequence[Any],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str | bytes, None]:
        """Stream vLLM's events with the rows of each event's tokens in it."""
        tap = self._tap(request)
        serving, parsers = without_loss(self)
        chunks = super(ChatServing, serving).chat_completion_stream_generator(
            _without_logprobs(request),
            tap.watch(result_generator),
            request_id,
            model_name,
            conversation,
            *args,
            **kwargs,
        )
        chunks = same_reasons(chunks, parsers, request, auto=self.enable_auto_tools)
        shown: AsyncIterator[str | bytes] = chunks
        if not self.hides_tokens(request):
            echoes = (request.n or 1) if self._echoes(request, conversation) else 0
            shown = tap.into_stream(chunks, echoes=echoes)
        async for chunk in shown:
            yield chunk

    async def chat_completion_full_generator(
        self,
        request: ChatRequest,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return vLLM's response as a dict with the rows in its choices, or its error."""
        tap = self._tap(request)
        response = await super().chat_completion_full_generator(
            _without_logprobs(request), tap.watch(result_generator), *args, **kwargs
        )
        answer = with_rows(response, None if self.hides_tokens(request) else tap, chat=True)
        if isinstance(answer, dict) and (prompt := tap.prompt_logprobs(0)) is not None:
            answer["prompt_logprobs"] = prompt
        return answer

    def hides_tokens(self, request: ChatRequest) -> bool:
        """Say whether reasoning is hidden; rows would show its tokens."""
        return self.parser_cls is not None and not request.include_reasoning

    def _tap(self, request: ChatRequest) -> RowCollector:
        as_ids = request.return_tokens_as_token_ids
        if as_ids is None:
            as_ids = self.return_tokens_as_token_ids
        count = (request.top_logprobs or 0) if request.logprobs else None
        if count is not None and request.logprob_token_ids:
            count = DENSE
        return RowCollector(request.plan, self.texts, count=count, as_ids=as_ids)

    def _echoes(self, request: ChatRequest, conversation: Sequence[Any]) -> bool:
        """Say whether vLLM streams the last message before the first token, like tokens."""
        last = conversation[-1] if request.echo and conversation else {}
        role = self.get_chat_request_role(request)
        return last.get("role") == role and bool(last.get("content"))


class TextServing(_WithTexts, OpenAIServingCompletion):
    """Completions with rows."""

    async def answer(self, request: TextRequest, raw_request: Request) -> Any:
        """Return a stream, an error, or a whole answer as JSON in pieces."""
        return await _written(await self.create_completion(request, raw_request))

    async def completion_stream_generator(
        self,
        request: TextRequest,
        engine_inputs: Sequence[Any],
        result_generator: AsyncIterator[tuple[int, RequestOutput]],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str | bytes, None]:
        """Stream vLLM's events with the rows of each event's tokens in it."""
        text = self._text_logprobs(request)
        tap = RowCollector(request.plan, self.texts, text=text)

        async def watched() -> AsyncIterator[tuple[int, RequestOutput]]:
            async for prompt, result in result_generator:
                first = prompt * (request.n or 1)
                shown = result.prompt
                if shown is None and request.echo:
                    shown = self._extract_prompt_text(engine_inputs[prompt])
                choices = [first + output.index for output in result.outputs]
                _take(request, tap, text, first, choices, result, shown)
                yield prompt, result

        chunks = super().completion_stream_generator(
            _without_text_logprobs(request), engine_inputs, watched(), *args, **kwargs
        )
        if echo_is_lost(request):
            prompts = [self._extract_prompt_text(each) or "" for each in engine_inputs]
            chunks = with_prompts(chunks, prompts, request.n or 1)
        async for chunk in tap.into_stream(chunks):
            yield chunk

    def request_output_to_completion_response(
        self,
        final_res_batch: list[RequestOutput],
        request: TextRequest,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return vLLM's response as a dict with the rows in its choices, or its error."""
        text = self._text_logprobs(request)
        tap = RowCollector(request.plan, self.texts, text=text)
        first = 0
        for result in final_res_batch:
            choices = list(range(first, first + len(result.outputs)))
            _take(request, tap, text, first, choices, result, result.prompt)
            first += len(choices)
        response = super().request_output_to_completion_response(
            final_res_batch, _without_text_logprobs(request), *args, **kwargs
        )
        if echo_is_lost(request):
            for at, choice in enumerate(response.choices):
                choice.text = (final_res_batch[at // (request.n or 1)].prompt or "") + choice.text
        return with_rows(response, tap, chat=False)

    def _text_logprobs(self, request: TextRequest) -> TextLogprobs | None:
        """Return the encoder of a request's logprobs; None without logprobs."""
        count = request.logprobs
        if count is None:
            return None
        as_ids = request.return_tokens_as_token_ids
        return TextLogprobs(
            self.texts,
            DENSE if request.logprob_token_ids else count,
            as_ids=self.return_tokens_as_token_ids if as_ids is None else as_ids,
            skips_special=request.skip_special_tokens,
            shows_tokens=not (request.echo and request.max_tokens == 0),
        )


def _take(
    request: TextRequest,
    tap: RowCollector,
    text: TextLogprobs | None,
    first: int,
    choices: Sequence[int],
    result: RequestOutput,
    shown: str | None,
) -> None:
    """Keep the rows of a completion's result; ``first`` is the first choice of its prompt."""
    prompt_rows = tap.take_prompt(first, result)
    if text is not None and request.echo:
        text.take_prompt(first, result.prompt_token_ids or (), prompt_rows, shown or "")
    for choice, output in zip(choices, result.outputs, strict=True):
        tap.take(choice, output)
        if text is not None:
            rows: Any = output.logprobs
            text.take(choice, first, result.prompt_token_ids, output.token_ids, rows)
        keep_prompt_only(request, output)


def _without_text_logprobs(request: TextRequest) -> TextRequest:
    """Return the request without logprobs; Sensefield encodes them itself."""
    return request if request.logprobs is None else request.model_copy(update={"logprobs": None})


def _without_logprobs(request: ChatRequest) -> ChatRequest:
    """Return the request without logprobs; Sensefield encodes them itself."""
    return request.model_copy(update={"logprobs": False}) if request.logprobs else request


def with_rows(response: Any, tap: RowCollector | None, *, chat: bool) -> Any:
    """Return an error, or a response as a dict whose choices are encoded later, with their rows."""
    if isinstance(response, ErrorResponse):
        return response

    def choices() -> Iterator[dict[str, Any]]:
        for choice in response.choices:
            dumped = choice.model_dump()
            if tap is not None:
                tap.into_choice(dumped, chat=chat)
            yield dumped

    answer: dict[str, Any] = response.model_dump(exclude={"choices"})
    return answer | {"choices": Later(json_list(choices()))}


async def _written(result: Any) -> Any:
    """Return a whole answer as JSON in pieces, and anything else as it is."""
    return await in_slices(json_pieces(result)) if isinstance(result, dict) else result
