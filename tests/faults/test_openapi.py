"""The server held to its own OpenAPI: requests made of it, good and bad, and what they get.

``--full`` makes more of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.faults.canary import Canary
from tests.faults.streams import client_of, settle
from tests.integration.client import Client
from tests.integration.servers import MODEL
from tests.waiting import PATIENCE_SECONDS

Operation = APIOperation[Any, Any, Any, Any]
EXAMPLES, EXAMPLES_FULL = 2, 60
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
JSON = "application/json"
TOKENS = 2
CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
PROMPT, TOKEN_IDS = "The sea is", [504, 5016, 314]
MESSAGES = [{"role": "user", "content": "Hi"}]
WORKING: dict[str, dict[str, Any]] = {
    "/tokenize": {"prompt": PROMPT},
    "/detokenize": {"tokens": TOKEN_IDS},
    "/generative_scoring": {"query": PROMPT, "items": [" blue"], "label_token_ids": TOKEN_IDS},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": TOKENS},
    "/v1/chat/completions/batch": {"messages": [MESSAGES] * 2, "max_tokens": TOKENS},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": TOKENS},
    "/v1/lens": {"prompt": PROMPT, "layers": [29], "max_tokens": TOKENS},
    "/v1/messages": {"model": MODEL, "messages": MESSAGES, "max_tokens": TOKENS},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": MESSAGES},
    "/v1/responses": {"input": PROMPT, "max_output_tokens": TOKENS},
    "/v1/score": {"prompt": PROMPT, "continuations": [" blue"]},
    "/v1/vectors": {"name": "of-openapi", "from": {"text": " sea"}, "replace": True},
}
"""Bodies that are answered with 200, by path."""


@pytest.fixture(scope="module")
def schema(v1: Client) -> Iterator[BaseSchema]:
    """The server's OpenAPI; whatever vectors were made by it are deleted."""
    found = schemathesis.openapi.from_dict(v1.http.get("/openapi.json").json())
    found.config.update(base_url=v1.server.url)
    before = names(v1)
    yield found
    for name in names(v1) - before:
        v1.http.delete(f"/v1/vectors/{name}").raise_for_status()


def names(v1: Client) -> set[str]:
    listed = v1.http.get("/v1/vectors", params={"limit": 1000}).json()
    return {vector["name"] for vector in listed["data"]}


def test_the_bodies_that_are_to_work_do(v1: Client, schema: BaseSchema) -> None:
    paths = {operation.path for operation in operations(schema)}
    assert paths >= WORKING.keys()
    for path, body in WORKING.items():
        answer = v1.http.post(path, json=body)
        assert answer.is_success, (path, answer.text)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_each_answer_is_one_that_is_documented(
    v1: Client,
    schema: BaseSchema,
    full: bool,
    mode: GenerationMode,
    subtests: pytest.Subtests,
) -> None:
    other = Client(v1.server)
    with other.http, Canary(other).asking():
        for operation in operations(schema):
            if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
                continue
            with subtests.test(operation.label):
                hold(operation, mode, EXAMPLES_FULL if full else EXAMPLES)


@pytest.mark.alone
async def test_nothing_is_left_of_them(v1: Client) -> None:
    async with client_of(v1.server) as client:
        await settle(client)
        assert (await client.get("/ready")).status_code == 200


def operations(schema: BaseSchema) -> Iterator[Operation]:
    """Yield the operations; all of them can be read."""
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        yield result.ok()


def can_be_wrong(operation: Operation) -> bool:
    """Say whether there is anything in a request that the schema could forbid."""
    return bool(operation.query) or any(each.media_type == JSON for each in operation.body)


def hold(operation: Operation, mode: GenerationMode, examples: int) -> None:
    """Send requests of one operation; assert that each is answered as the OpenAPI says."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(operation, mode))
    def answered(case: Case[Any]) -> None:
        answer = case.call(timeout=PATIENCE_SECONDS)
        assert answer.status_code not in (500, 502, 503, 504), answer.text
        case.validate_response(answer, checks=CHECKS)

    answered()


@st.composite
def cases(draw: st.DrawFn, operation: Operation, mode: GenerationMode) -> Case[Any]:
    """Return a request as the schema has it, or one that works with a few fields from there."""
    case: Case[Any] = draw(operation.as_strategy(generation_mode=mode))
    working = WORKING.get(operation.path)
    if working is not None and isinstance(case.body, dict):
        body: dict[str, Any] = case.body
        mixed: bool = draw(st.booleans())
        if body and mixed:
            fields = draw(st.lists(st.sampled_from(sorted(body)), max_size=3))
            body = {**working, **{field: body[field] for field in fields}}
        capped = {field: TOKENS for field in CAPS if field in working}
        case.body = {**capped, **{field: cut(field, body[field]) for field in body}}
    return case


def cut(field: str, value: Any) -> Any:
    """Return a field's value, with no more tokens than make a quick answer."""
    is_long = value is None or (isinstance(value, int) and value > TOKENS)
    return TOKENS if field in CAPS and is_long else value
