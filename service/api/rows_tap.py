"""Takes the kept rows out of the engine's answers and puts them into the client's."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from math import isfinite
from typing import Any

import orjson
from vllm.exceptions import RetryableRequestError, VLLMValidationError
from vllm.outputs import CompletionOutput, RequestOutput

from logit_processors.program import Program
from logit_processors.row_spec import ALIVE, BROKEN, COLUMN, EXHAUSTED, RowSpec, TokenRow
from service.distributions.encode import DistributionEncoder
from service.distributions.openai_logprobs import chat_logprobs, vllm_logprobs
from service.distributions.token_texts import TokenTexts
from service.engine.exhaustion import no_token_left
from service.metrics import ENCODE_SECONDS, KL_NATS, ROW_BYTES, ROWS
from service.planning.plan import Plan
from service.schemas.distribution import DistributionRequest

_EVENT = b"data: "


def check_rows(
    rows: Sequence[TokenRow], program: Program | None, masks: Sequence[str] = ()
) -> None:
    """Make sure that the tokens of these rows were chosen as their request asked.

    Tokens without a row were.

    Args:
        rows: of one request.
        program: its control.
        masks: vLLM's fields in it that may leave no token.

    Raises:
        VLLMValidationError: suppression, masks, or what forbade a forced token, left one of them
            no probability.
        RetryableRequestError: the engine had no longer what the program needs.

    """
    worst = min((row.statistics[COLUMN["alive"]] for row in rows), default=ALIVE)
    if worst == BROKEN:
        raise RetryableRequestError(
            "the engine does not hold a vector or text pattern of this request at the "
            "moment; send it again"
        )
    if worst == EXHAUSTED and program is not None and program.force:
        raise VLLMValidationError(
            "a forced token is forbidden by suppression, the grammar, allowed_token_ids, "
            "bad_words or min_tokens, or they left no token to choose",
            parameter="logit_control.force",
        )
    if worst == EXHAUSTED and masks and not (program is not None and program.suppresses):
        raise no_token_left(masks)
    if worst == EXHAUSTED:
        raise VLLMValidationError(
            "suppression, together with the grammar or allowed_token_ids if there is one, "
            "left no token to choose",
            parameter="logit_control.suppress",
        )


def count_rows(
    request: DistributionRequest, spec: RowSpec, encoding: str, rows: Sequence[TokenRow]
) -> None:
    """Count rows that were sent for a distribution."""
    size = sum(row.logprobs.nbytes + row.token_ids.nbytes for row in rows)
    for stage in request.stages:
        ROWS.labels(stage, encoding).inc(len(rows))
        ROW_BYTES.labels(stage, encoding).inc(size / len(spec.stages))
    if len(request.stages) == 2:
        for row in rows:
            # One that is none, of a model steered out of its numbers, would stay in the sum.
            if isfinite(kl := float(row.statistics[COLUMN["kl"]])):
                KL_NATS.observe(kl)


class RowsTap:
    """The rows of one request that wait to be sent, by choice.

    Args:
        plan: the request's.
        texts: what tokens look like.
        as_ids: whether a chat's logprobs call tokens by their ids.

    """

    def __init__(self, plan: Plan, texts: TokenTexts, *, as_ids: bool = False) -> None:
        self._plan = plan
        self._as_ids = as_ids
        self._texts = texts
        self._waiting: dict[int, tuple[list[int], list[TokenRow]]] = {}
        self._prompts: dict[int, tuple[list[int], list[TokenRow]]] = {}
        self._told_prompts: set[int] = set()
        self._encoder = self._encoder_of(plan.spec)
        self._prompt_encoder = self._encoder_of(plan.prompt_spec)

    async def watch(self, results: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
        """Pass a chat's results on, keeping their rows here."""
        async for result in results:
            self.take_prompt(0, result)
            for output in result.outputs:
                self.take(output.index, output)
            yield result

    def take_prompt(self, choice: int, result: RequestOutput) -> None:
        """Keep the rows of a result's prompt for its first choice, and leave vLLM's own form."""
        rows: Any = result.prompt_logprobs
        spec = self._plan.prompt_spec
        if spec is None or rows is None:
            return
        result.prompt_logprobs = None
        token_ids = list(result.prompt_token_ids or ())[1:]
        # Each of a prompt's choices has its rows, and a prompt of one token has none.
        if len(rows) < len(token_ids):
            return
        asked = self._plan.asked
        if asked.prompt_logprobs is not None:
            count = asked.prompt_logprobs
            listed = zip(token_ids, rows, strict=True)
            result.prompt_logprobs = [
                None,
                *(vllm_logprobs(self._texts, token, row, count) for token, row in listed),
            ]
        if choice in self._told_prompts:
            return
        self._told_prompts.add(choice)
        if rows and asked.distribution is not None and asked.distribution.prompt:
            self._prompts[choice] = token_ids, rows

    def take(self, choice: int, output: CompletionOutput) -> None:
        """Keep the rows of one output; raises as :func:`check_rows` does."""
        self._plan.leave_queue()
        if not self._plan.asked.arrow:  # whose tokens were counted as they were sent
            self._plan.tokens += len(output.token_ids)
        rows: Any = output.logprobs
        if self._plan.spec is None or not rows:
            return
        check_rows(rows, self._plan.program, self._plan.masks)
        if self._plan.shows_rows:
            token_ids, kept = self._waiting.setdefault(choice, ([], []))
            token_ids += output.token_ids
            kept += rows

    async def into_stream(
        self, chunks: AsyncIterator[str], *, chat: bool, echoes: int = 0
    ) -> AsyncGenerator[bytes | str, None]:
        """Put waiting rows into the server-sent events of their tokens.

        Args:
            chunks: vLLM's events.
            chat: whether they are a chat's.
            echoes: choices of which the first event with a text repeats one of the prompt's.

        """
        echoed = set(range(echoes))
        async for chunk in chunks:
            if not (self._waiting or self._prompts) or not chunk.startswith("data: {"):
                yield chunk
                continue
            event = orjson.loads(chunk[len(_EVENT) :])
            if not event.get("choices"):  # an error, which must be seen as one, or the usage
                yield chunk
                continue
            for choice in event["choices"]:
                # vLLM opens a chat with an event that holds the role and no token.
                if "role" in choice.get("delta", ()):
                    continue
                if choice["index"] in echoed:
                    echoed.remove(choice["index"])
                    continue
                self.into_choice(choice, chat=chat)
            yield _EVENT + orjson.dumps(event) + b"\n\n"

    def into_choice(self, choice: dict[str, Any], *, chat: bool) -> None:
        """Put the rows that wait for a choice into it."""
        token_ids, rows = self._waiting.pop(choice["index"], ([], []))
        if not rows:
            return
        asked = self._plan.asked
        if chat and asked.logprobs is not None:
            texts, count = self._texts, asked.logprobs
            choice["logprobs"] = chat_logprobs(texts, token_ids, rows, count, self._as_ids)
        if self._encoder is not None:
            told = _encode(self._encoder, token_ids, rows)
            prompt_ids, prompt_rows = self._prompts.pop(choice["index"], ([], []))
            if prompt_rows and self._prompt_encoder is not None:
                prompt = _encode(self._prompt_encoder, prompt_ids, prompt_rows)
                told = b'%s,"prompt":%s}' % (told[:-1], prompt)
            choice["distribution"] = orjson.Fragment(told)

    def _encoder_of(self, spec: RowSpec | None) -> DistributionEncoder | None:
        asked = self._plan.asked
        if spec is None or asked.distribution is None or asked.arrow:
            return None
        return DistributionEncoder(asked.distribution, spec, self._plan.width)


def _encode(
    encoder: DistributionEncoder, token_ids: Sequence[int], rows: Sequence[TokenRow]
) -> bytes:
    """Encode rows, and count them and the time that it takes."""
    encoding = encoder.request.encoding
    started = time.perf_counter()
    answer = encoder.encode(token_ids, rows)
    ENCODE_SECONDS.labels(encoding).observe(time.perf_counter() - started)
    count_rows(encoder.request, encoder.spec, encoding, rows)
    return answer
