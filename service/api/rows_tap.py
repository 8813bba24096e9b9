"""Takes the rows out of the engine's outputs and puts them into the client's answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from math import isfinite
from typing import Any

import orjson

from logit_processors.control import Phase
from logit_processors.program import Program
from logit_processors.registry import by_name, failed_name, field_of
from logit_processors.row_spec import ALIVE, BROKEN, COLUMN, EXHAUSTED, RowSpec, TokenRow
from service.api.text_logprobs import TextLogprobs
from service.distributions.encode import DistributionEncoder
from service.distributions.openai_logprobs import chat_logprobs, prompt_logprobs
from service.distributions.text_walk import TextWalk
from service.distributions.token_texts import TokenTexts
from service.engine.exhaustion import no_token_left
from service.engine.vllm_errors import RetryableRequestError, VLLMValidationError
from service.engine.vllm_requests import CompletionOutput, RequestOutput
from service.errors import ControlFailedError
from service.metrics import ENCODE_SECONDS, KL_NATS, ROW_BYTES, ROWS
from service.pieces import Later
from service.planning.plan import Plan
from service.schemas.distribution import DistributionRequest

_EVENT = b"data: "
_MASKING = {"suppress": "suppression"}
"""How messages name a field that masks."""


def check_rows(rows: Sequence[TokenRow], program: Program, masks: Sequence[str] = ()) -> None:
    """Check the status of rows: control was applied and left a token to choose.

    A token without a row is fine.

    Args:
        rows: rows of one request.
        program: the request's program.
        masks: vLLM's fields of the request that may forbid every token.

    Raises:
        ControlFailedError: a control raised an exception.
        VLLMValidationError: suppression or masks left no token, or forbade a forced token.
        RetryableRequestError: a vector or text pattern of the program was missing.

    """
    worst = min((row.statistics[COLUMN["alive"]] for row in rows), default=ALIVE)
    if worst < BROKEN:
        name = failed_name(worst)
        raise ControlFailedError(
            f"the control {name!r} failed on this request; the server's log says why",
            f"logit_control.{field_of(by_name()[name])}",
            ControlFailedError.CODE,
        )
    if worst == BROKEN:
        raise RetryableRequestError(
            "the engine does not hold a vector or text pattern of this request at the "
            "moment; send it again"
        )
    if worst == EXHAUSTED and (field := program.field_at(Phase.FORCE)):
        raise VLLMValidationError(
            "a forced token is forbidden by suppression, the grammar, allowed_token_ids, "
            "bad_words or min_tokens, or they left no token to choose",
            parameter=f"logit_control.{field}",
        )
    if worst == EXHAUSTED and masks and not program.field_at(Phase.MASK, Phase.SHAPE):
        raise no_token_left(masks)
    if worst == EXHAUSTED:
        field = program.field_at(Phase.MASK, Phase.SHAPE) or "suppress"
        raise VLLMValidationError(
            f"{_MASKING.get(field, field)}, together with the grammar or allowed_token_ids if "
            "there is one, left no token to choose",
            parameter=f"logit_control.{field}",
        )


def count_rows(
    request: DistributionRequest, spec: RowSpec, encoding: str, rows: Sequence[TokenRow]
) -> None:
    """Count the rows of a distribution in the metrics."""
    size = sum(row.logprobs.nbytes + row.token_ids.nbytes for row in rows)
    for stage in request.stages:
        ROWS.labels(stage, encoding).inc(len(rows))
        ROW_BYTES.labels(stage, encoding).inc(size / len(spec.stages))


def count_divergences(plan: Plan, rows: Sequence[TokenRow]) -> None:
    """Observe the KL divergence between the stages of rows that were sent in both.

    Residual steering changes both stages, so that its divergence is not known here.
    """
    asked = plan.asked.distribution
    if asked is None or len(asked.stages) < 2 or not plan.program.entries or plan.residual:
        return
    for row in rows:
        # Skip NaN and inf, of a model steered too far: they would stay in the histogram's sum.
        if isfinite(kl := float(row.statistics[COLUMN["kl"]])):
            KL_NATS.observe(kl)


class RowCollector:
    """The rows of one request that wait to be sent, by choice.

    Args:
        plan: the request's plan.
        texts: the texts of tokens.
        count: alternatives in a chat's logprobs, or DENSE; None without logprobs.
        as_ids: whether a chat's logprobs show tokens by their ids.
        text: encodes a completion's logprobs, if it has them.

    """

    def __init__(
        self,
        plan: Plan,
        texts: TokenTexts,
        *,
        count: int | None = None,
        as_ids: bool = False,
        text: TextLogprobs | None = None,
    ) -> None:
        self._plan = plan
        self._count = count
        self._as_ids = as_ids
        self._texts = texts
        self._text = text
        self._waiting: dict[int, tuple[list[int], list[Any]]] = {}
        self._prompts: dict[int, tuple[list[int], list[TokenRow]]] = {}
        self._unsent_prompts: set[int] = set()
        self._encoder = self._encoder_of(plan.spec)
        self._prompt_encoder = self._encoder_of(plan.prompt_spec)

    async def watch(self, results: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
        """Pass a chat's results on, and keep their rows."""
        async for result in results:
            self.take_prompt(0, result)
            for output in result.outputs:
                self.take(output.index, output)
            yield result

    def take_prompt(self, choice: int, result: RequestOutput) -> list[TokenRow] | None:
        """Take the prompt's rows out of a result, keep them for its first choice, return them."""
        rows: Any = result.prompt_logprobs
        if self._plan.prompt_spec is None or rows is None:
            return None
        result.prompt_logprobs = None
        token_ids = list(result.prompt_token_ids or ())
        # vLLM repeats a prompt's rows with each of its choices; a prompt of one token has none.
        if len(rows) < len(token_ids) - 1:
            return None
        if choice not in self._prompts:
            self._prompts[choice] = token_ids, rows
            asked = self._plan.asked.distribution
            if rows and asked is not None and asked.prompt:
                self._unsent_prompts.add(choice)
        return rows

    def take(self, choice: int, output: CompletionOutput) -> None:
        """Keep the rows of one output; raise the errors of :func:`check_rows`."""
        self._plan.leave_queue()
        if not self._plan.asked.arrow:  # an Arrow stream has counted its tokens already
            self._plan.tokens += len(output.token_ids)
        rows: Any = output.logprobs
        if not rows:
            return
        if self._plan.spec is not None:
            check_rows(rows, self._plan.program, self._plan.masks)
        # Without a spec they are the engine's own logprobs, as with beam search.
        if self._count is not None or (self._plan.spec is not None and self._plan.shows_rows):
            token_ids, kept = self._waiting.setdefault(choice, ([], []))
            token_ids += output.token_ids
            kept += rows

    async def into_stream(
        self, chunks: AsyncIterator[str], *, echoes: int = 0
    ) -> AsyncGenerator[bytes | str, None]:
        """Put waiting rows into the server-sent events of their tokens.

        Args:
            chunks: vLLM's events.
            echoes: number of choices whose first event with a text repeats the prompt's message.

        """
        echoed = set(range(echoes))
        async for chunk in chunks:
            if not self._waits or not chunk.startswith("data: {"):
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
                for field, pieces in self._fields(choice["index"]):
                    choice[field] = orjson.Fragment(b"".join(pieces))
            yield _EVENT + orjson.dumps(event) + b"\n\n"

    @property
    def _waits(self) -> bool:
        text = self._text is not None and self._text.waits
        return text or bool(self._waiting or self._unsent_prompts)

    def into_choice(self, choice: dict[str, Any], *, chat: bool) -> None:
        """Put a choice's waiting rows into a whole answer, to be encoded later."""
        for field, pieces in self._fields(choice["index"]):
            choice[field] = Later(pieces)
        if not chat and (prompt := self.prompt_logprobs(choice["index"])) is not None:
            choice["prompt_logprobs"] = prompt

    def prompt_logprobs(self, choice: int) -> Later | None:
        """Return vLLM's ``prompt_logprobs`` of a choice, if they were asked for."""
        asked = self._plan.asked
        kept = self._prompts.get(choice - choice % asked.choices)
        if kept is None or (count := asked.prompt_logprobs) is None:
            return None
        token_ids, rows = kept

        def pieces() -> Iterator[bytes]:
            walk = TextWalk(self._texts, skips_special=False)
            tokens = map(walk.step, token_ids)
            next(tokens, None)  # the first has no probability
            yield from prompt_logprobs(self._texts, tokens, rows, count)

        return Later(pieces())

    def _fields(self, index: int) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the fields of a choice's waiting rows, each as JSON in pieces."""
        if self._text is not None:
            yield "logprobs", self._text.pieces(index)
        token_ids, rows = self._waiting.pop(index, ([], []))
        if not rows:
            return
        if self._count is not None:
            listed = chat_logprobs(self._texts, token_ids, rows, self._count, self._as_ids)
            yield "logprobs", listed
        if self._encoder is None:
            return
        count_divergences(self._plan, rows)
        pieces = _encoded(self._encoder, token_ids, rows)
        if index in self._unsent_prompts and self._prompt_encoder is not None:
            self._unsent_prompts.remove(index)
            prompt_ids, prompt_rows = self._prompts[index]
            prompt = _encoded(self._prompt_encoder, prompt_ids[1:], prompt_rows)
            pieces = _with_prompt(pieces, prompt)
        yield "distribution", pieces

    def _encoder_of(self, spec: RowSpec | None) -> DistributionEncoder | None:
        asked = self._plan.asked
        if spec is None or asked.distribution is None or asked.arrow:
            return None
        return DistributionEncoder(asked.distribution, spec, self._plan.width, self._plan.unseen)


def _with_prompt(pieces: Iterator[bytes], prompt: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a JSON object with the field ``prompt`` added."""
    last = b""
    for piece in pieces:
        yield last if piece else b""
        last = piece or last
    yield last[:-1] + b',"prompt":'
    yield from prompt
    yield b"}"


def _encoded(
    encoder: DistributionEncoder, token_ids: Sequence[int], rows: Sequence[TokenRow]
) -> Iterator[bytes]:
    """Encode rows in pieces, and count the rows and the time."""
    encoding = encoder.request.encoding
    spent = 0.0
    pieces = encoder.pieces(token_ids, rows)
    while True:
        started = time.perf_counter()
        piece = next(pieces, None)
        spent += time.perf_counter() - started
        if piece is None:
            break
        yield piece
    ENCODE_SECONDS.labels(encoding).observe(spent)
    count_rows(encoder.request, encoder.spec, encoding, rows)
