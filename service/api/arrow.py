"""An answer as an Arrow stream: rows as the engine computes them, OpenAI's object at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Coroutine
from contextlib import aclosing
from typing import Any

import orjson

from logit_processors.row_spec import TokenRow
from service.access.parameters import body_of
from service.access.visit import outcome_of
from service.api.rows_tap import check_rows, count_divergences, count_rows
from service.distributions.arrow import BROKEN_OFF, END, ERROR, MEDIA_TYPE, RESPONSE, ArrowEncoder
from service.distributions.token_texts import TokenTexts
from service.engine.vllm_errors import RetryableRequestError, VLLMError
from service.engine.vllm_http import ErrorResponse, create_error_response
from service.engine.vllm_requests import CompletionOutput, RequestOutput, RequestOutputKind
from service.errors import RequestError, SaturatedError, error_body
from service.metrics import ENCODE_SECONDS
from service.planning.plan import Plan

_IN_THREAD_BYTES = 256 << 10
"""Bytes from which a batch is compressed in a thread."""
_log = logging.getLogger("vllm.sensefield")


def accepts_arrow(accept: str) -> bool:
    """Say whether an Accept header prefers an Arrow stream to JSON."""
    weights: dict[str, float] = {}
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = [p[2:] for p in parameters if p.startswith("q=")]
        try:
            weights[name] = float(quality[0]) if quality else 1.0
        except ValueError:
            weights[name] = 0.0
    arrow = weights.get(MEDIA_TYPE, 0.0)
    return arrow > 0 and arrow >= weights.get("application/json", 0.0)


class ArrowAnswer:
    """The stream of one request: an engine client fills it, the response empties it.

    The engine client waits while a batch waits to be sent. Meanwhile vLLM collects the request's
    rows for the next batch; the request's claim on the budget covers them.

    Args:
        engine: the client that generates.
        plan: the request's plan.
        texts: the texts of the model's tokens.
        choices: number of choices per prompt.
        sent: names of the request's fields.

    """

    def __init__(
        self,
        engine: Any,
        plan: Plan,
        texts: TokenTexts,
        choices: int,
        sent: Collection[str] = (),
    ) -> None:
        request, spec = plan.asked.distribution, plan.spec
        assert request is not None
        assert spec is not None
        self._engine = engine
        self._plan = plan
        self._choices = choices
        self._fields = sent
        self._encoder = ArrowEncoder(request, spec, plan.width, texts, plan.unseen)
        self._prompt_encoder: ArrowEncoder | None = None
        if request.prompt and plan.prompt_spec is not None:
            self._prompt_encoder = ArrowEncoder(
                request, plan.prompt_spec, plan.width, texts, plan.unseen
            )
        self._compresses = request.compression is not None
        self._prompts = 0
        self._sent: dict[int, int] = {}
        self._sent_prompts: set[int] = set()
        self._messages: asyncio.Queue[memoryview | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(1)
        self.outcome = "ok"
        """The outcome for the metrics, once the stream has ended."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """Generate like the engine: rows go into the stream, one complete output is yielded."""
        sampling_params.output_kind = RequestOutputKind.DELTA
        results = self._engine.generate(prompt, sampling_params, *args, **kwargs)
        self._prompts += 1
        return self._gather(self._prompts - 1, results)

    async def _gather(
        self, prompt: int, results: AsyncGenerator[RequestOutput, None]
    ) -> AsyncGenerator[RequestOutput, None]:
        whole: RequestOutput | None = None
        async with aclosing(results):
            async for result in results:
                self._plan.leave_queue()
                await self._take_prompt(prompt * self._choices, result)
                for output in result.outputs:
                    await self._take(prompt * self._choices + output.index, output)
                if whole is None:
                    whole = result
                else:
                    whole.add(result, aggregate=True)
        if whole is not None:
            whole.outputs.sort(key=lambda output: output.index)
            yield whole

    async def _take_prompt(self, choice: int, result: RequestOutput) -> None:
        rows: Any = result.prompt_logprobs
        if not rows or self._prompt_encoder is None or choice in self._sent_prompts:
            return
        # vLLM repeats a prompt's rows with each of its choices.
        self._sent_prompts.add(choice)
        token_ids = list(result.prompt_token_ids or ())[1:]
        if self._plan.asked.prompt_logprobs is None:
            result.prompt_logprobs = None
        # Step 0 is the first generated token, -1 the last token of the prompt.
        self._sent[choice] = -len(rows)
        await self._put_all(self._prompt_encoder, choice, token_ids, rows)

    async def _take(self, choice: int, output: CompletionOutput) -> None:
        self._plan.tokens += len(output.token_ids)
        rows: Any = output.logprobs
        if not rows:
            return
        check_rows(rows, self._plan.program, self._plan.masks)
        token_ids = list(output.token_ids)
        if self._plan.asked.logprobs is None:
            output.logprobs = None
        await self._put_all(self._encoder, choice, token_ids, rows)
        count_divergences(self._plan, rows)

    async def _put_all(
        self, encoder: ArrowEncoder, choice: int, token_ids: list[int], rows: list[TokenRow]
    ) -> None:
        step = encoder.rows_per_batch
        for at in range(0, len(rows), step):
            await self._put(encoder, choice, token_ids[at : at + step], rows[at : at + step])

    async def _put(
        self, encoder: ArrowEncoder, choice: int, token_ids: list[int], rows: list[TokenRow]
    ) -> None:
        await self._room.acquire()
        first = self._sent.get(choice, 0)
        self._sent[choice] = first + len(rows)
        started = time.perf_counter()
        arguments = choice, first, token_ids, rows
        size = sum(row.logprobs.nbytes + row.token_ids.nbytes for row in rows)
        if self._compresses and size > _IN_THREAD_BYTES:
            message = await asyncio.to_thread(encoder.rows, *arguments)
        else:
            message = encoder.rows(*arguments)
        ENCODE_SECONDS.labels("arrow").observe(time.perf_counter() - started)
        count_rows(encoder.request, encoder.spec, "arrow", rows)
        self._messages.put_nowait(message)

    async def start(self, answering: Coroutine[Any, Any, Any]) -> ErrorResponse | None:
        """Start the answer, with this object as its engine, and wait for the first row.

        Returns:
            vLLM's error, if the request was refused.

        Raises:
            Exception: any error before the first row.

        """
        self._task = asyncio.ensure_future(answering)
        self._task.add_done_callback(lambda _: self._messages.put_nowait(None))
        try:
            self._first = await self._messages.get()
        except asyncio.CancelledError:
            await self._stop()
            raise
        if self._first is None and isinstance(refused := self._task.result(), ErrorResponse):
            return refused
        return None

    async def body(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield the stream's messages; an error ends it so that every reader notices."""
        try:
            yield self._encoder.head
            message = self._first
            while message is not None:
                yield message
                self._room.release()
                message = await self._messages.get()
            for part in self._closing():
                yield part
        finally:
            await self._stop()

    def failure(self, error: RequestError) -> bytes:
        """Return the last bytes of a stream that ends with an error."""
        return b"".join(self._failure(error.to_body()))

    def _failure(self, error: dict[str, Any]) -> list[bytes]:
        return [self._encoder.closing(ERROR, orjson.dumps(error)), BROKEN_OFF]

    def _refused(self, error: RequestError) -> dict[str, Any]:
        self.outcome = outcome_of(error.status)
        return error.to_body()

    def _closing(self) -> list[bytes]:
        self.outcome = "server_error"
        try:
            answer = self._task.result()
        except asyncio.CancelledError:
            error = error_body("the request was aborted", "server_error")
        except RequestError as refused:
            error = self._refused(refused)
        except RetryableRequestError as retry:
            error = self._refused(SaturatedError(str(retry)))
        except (VLLMError, ValueError, TypeError, OverflowError) as failure:
            error = self._from_vllm(create_error_response(failure))
        except Exception:
            _log.exception("an Arrow stream ended with an error")
            error = error_body("internal error", "server_error")
        else:
            if not isinstance(answer, ErrorResponse):
                self.outcome = "ok"
                return [self._encoder.closing(RESPONSE, b"".join(answer)), END]
            error = self._from_vllm(answer)
        return self._failure(error)

    async def _stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def _from_vllm(self, answer: ErrorResponse) -> dict[str, Any]:
        error = answer.error
        if error.code < 500:
            self.outcome = "client_error"
        return body_of(error, self._fields)
