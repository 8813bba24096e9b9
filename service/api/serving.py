"""vLLM's serving classes with the rows taken out before and put in after.

Everything else (templates, tools, reasoning, streaming) is vLLM's own. Each is made from
the object that vLLM built, so it serves with the same settings.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from copy import copy
from typing import Any, Self

from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.outputs import RequestOutput

from logit_processors.row_spec import TokenRow
from service.api.requests import ChatRequest, TextRequest
from service.api.rows_tap import RowsTap
from service.distributions.openai_logprobs import completion_logprobs, vllm_logprobs
from service.distributions.token_texts import TokenTexts
from service.engine.cache_salt import SaltingEngine


class _Adopting:
    """Made from a stock serving object, whose state it shares."""

    texts: TokenTexts
    engine_client: Any

    @classmethod
    def adopt(cls, stock: object, texts: TokenTexts, engine: SaltingEngine) -> Self:
        """Return one that serves as ``stock`` does, through ``engine``."""
        serving = cls.__new__(cls)
        serving.__dict__.update(stock.__dict__)
        serving.texts = texts
        serving.engine_client = engine
        return serving

    def through(self, engine: Any) -> Self:
        """Return one that serves the same through another engine client."""
        serving = copy(self)
        serving.engine_client = engine
        return serving


class ChatServing(_Adopting, OpenAIServingChat):
    """Chat completions with rows."""

    answer = OpenAIServingChat.create_chat_completion

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
        chunks = super().chat_completion_stream_generator(
            _without_logprobs(request),
            tap.watch(result_generator),
            request_id,
            model_name,
            conversation,
            *args,
            **kwargs,
        )
        shown: AsyncIterator[str | bytes] = chunks
        if not self.hides_tokens(request):
            echoes = (request.n or 1) if self._echoes(request, conversation) else 0
            shown = tap.into_stream(chunks, chat=True, echoes=echoes)
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
        return with_rows(response, None if self.hides_tokens(request) else tap, chat=True)

    def hides_tokens(self, request: ChatRequest) -> bool:
        """Say whether reasoning is hidden, and with it all that would show its tokens."""
        return self.parser_cls is not None and not request.include_reasoning

    def _tap(self, request: ChatRequest) -> RowsTap:
        as_ids = request.return_tokens_as_token_ids
        if as_ids is None:
            as_ids = self.return_tokens_as_token_ids
        return RowsTap(request.plan, self.texts, as_ids=as_ids)

    def _echoes(self, request: ChatRequest, conversation: Sequence[Any]) -> bool:
        """Say whether vLLM tells the last message before the first token, as it tells tokens."""
        last = conversation[-1] if request.echo and conversation else {}
        role = self.get_chat_request_role(request)
        return last.get("role") == role and bool(last.get("content"))


class TextServing(_Adopting, OpenAIServingCompletion):
    """Completions with rows."""

    answer = OpenAIServingCompletion.create_completion

    async def completion_stream_generator(
        self,
        request: TextRequest,
        engine_inputs: Sequence[Any],
        result_generator: AsyncIterator[tuple[int, RequestOutput]],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str | bytes, None]:
        """Stream vLLM's events with the rows of each event's tokens in it."""
        tap = RowsTap(request.plan, self.texts)

        async def watched() -> AsyncIterator[tuple[int, RequestOutput]]:
            async for prompt, result in result_generator:
                tap.take_prompt(prompt * (request.n or 1), result)
                for output in result.outputs:
                    tap.take(output.index + prompt * (request.n or 1), output)
                yield prompt, result

        chunks = super().completion_stream_generator(
            request, engine_inputs, watched(), *args, **kwargs
        )
        async for chunk in tap.into_stream(chunks, chat=False):
            yield chunk

    def request_output_to_completion_response(
        self,
        final_res_batch: list[RequestOutput],
        request: TextRequest,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Return vLLM's response as a dict with the rows in its choices, or its error."""
        tap = RowsTap(request.plan, self.texts)
        choice = 0
        for result in final_res_batch:
            tap.take_prompt(choice, result)
            for output in result.outputs:
                tap.take(choice, output)
                choice += 1
        response = super().request_output_to_completion_response(
            final_res_batch, request, *args, **kwargs
        )
        return with_rows(response, tap, chat=False)

    def _create_completion_logprobs(
        self,
        token_ids: Sequence[int],
        top_logprobs: Sequence[Any],
        num_output_top_logprobs: int,
        tokenizer: Any,
        logprob_token_ids: list[int] | None = None,
        initial_text_offset: int = 0,
        return_as_token_id: bool | None = None,
    ) -> CompletionLogProbs:
        """Write the logprobs from our rows; have vLLM write them where not all are rows."""
        as_ids = return_as_token_id
        if as_ids is None:
            as_ids = self.return_tokens_as_token_ids
        if as_ids or not all(isinstance(entry, TokenRow) for entry in top_logprobs):
            entries = [
                vllm_logprobs(self.texts, token, entry, num_output_top_logprobs)
                if isinstance(entry, TokenRow)
                else entry
                for token, entry in zip(token_ids, top_logprobs, strict=True)
            ]
            return super()._create_completion_logprobs(
                token_ids,
                entries,
                num_output_top_logprobs,
                tokenizer,
                logprob_token_ids,
                initial_text_offset,
                return_as_token_id,
            )
        return completion_logprobs(
            self.texts, token_ids, top_logprobs, num_output_top_logprobs, initial_text_offset
        )


def _without_logprobs(request: ChatRequest) -> ChatRequest:
    """Return the request with the logprobs that Sensefield writes itself turned off."""
    if request.plan.asked.logprobs is None or request.plan.spec is None:
        return request
    return request.model_copy(update={"logprobs": False})


def with_rows(response: Any, tap: RowsTap | None, *, chat: bool) -> dict[str, Any]:
    """Return a response as a dict, with the rows of each choice in it."""
    answer: dict[str, Any] = response.model_dump()
    if tap is not None:
        for choice in answer.get("choices", ()):
            tap.into_choice(choice, chat=chat)
    return answer
