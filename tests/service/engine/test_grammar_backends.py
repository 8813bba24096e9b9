"""One compiler for each grammar in vLLM's own manager, in both orders of requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from vllm.config import VllmConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from service.engine.grammar_backends import enforcing
from tests.seam_support import install

# vLLM's call of xgrammar.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")

Case = tuple[dict[str, Any], str, str]
"""A grammar, a text that it allows and one that it forbids."""
BOOLEAN = {"type": "boolean"}
PLAIN: Case = {"json": BOOLEAN}, "true", '"a"'
TUPLE: Case = (
    {"json": {"type": "array", "items": [BOOLEAN, BOOLEAN], "minItems": 2}},
    "[true,false]",
    "[1",
)
ITSELF = {
    "$ref": "#/$defs/n",
    "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#"}}}},
}
RECURSIVE: Case = {"json": ITSELF}, '{"n":{}}', '{"n":1'
SHORT: Case = {"json": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}}, '"abc"', '"abcd'
BRANCHES = [{"type": "object", "properties": {n: BOOLEAN}, "required": [n]} for n in ("a", "b")]
BOTH: Case = {"json": {"allOf": BRANCHES}}, '{"a":true,"b":true}', '"a'
ALL: dict[str, Case] = {
    "plain": PLAIN,
    "tuple": TUPLE,
    "recursive": RECURSIVE,
    "short": SHORT,
    "both": BOTH,
}


@pytest.fixture
def manager(
    vllm_config: VllmConfig, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StructuredOutputManager]:
    """vLLM's manager of a fresh engine, with a compiler for each grammar."""
    install(monkeypatch, "StructuredOutputManager.grammar_init")
    made = StructuredOutputManager(vllm_config)
    yield made
    made.clear_backend()


def compiled(manager: StructuredOutputManager, **grammar: Any) -> StructuredOutputGrammar:
    """Return a grammar as the engine gets it: validated by the API process, then compiled."""
    params = SamplingParams(max_tokens=9, structured_outputs=StructuredOutputsParams(**grammar))
    config = manager.vllm_config
    params._validate_structured_outputs(
        config.model_config, config.structured_outputs_config, manager.tokenizer
    )
    request = Request("1", [1], params, None)
    manager.grammar_init(request)
    assert request.structured_output_request is not None
    future: Any = request.structured_output_request._grammar
    made: StructuredOutputGrammar = future.result()
    return made


def assert_obeys(manager: StructuredOutputManager, case: Case) -> None:
    grammar, allowed, forbidden = case
    made = compiled(manager, **grammar)
    mask = made_mask(manager)
    for text, obeys in ((allowed, True), (forbidden, False)):
        token_ids = manager.tokenizer.encode(text)
        assert (made.validate_tokens(token_ids) == token_ids) is obeys, text
    made.fill_bitmask(mask, 0)


def made_mask(manager: StructuredOutputManager) -> Any:
    assert manager.backend is not None
    return manager.backend.allocate_token_bitmask(1)


@pytest.mark.parametrize("order", [list(ALL), list(reversed(ALL))], ids=["forward", "backward"])
def test_a_schema_is_enforced_in_every_order(
    manager: StructuredOutputManager, order: list[str]
) -> None:
    for name in order:
        assert_obeys(manager, ALL[name])


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_forced_tool_call_compiles_after_a_tuple(
    manager: StructuredOutputManager, choice: Any
) -> None:
    assert_obeys(manager, TUPLE)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    request = ChatCompletionRequest(
        messages=[{"role": "user", "content": "x"}], tools=[tool], tool_choice=choice
    )
    tag = Hermes2ProToolParser(manager.tokenizer, request.tools).get_structural_tag(request)
    assert tag is not None
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert_obeys(manager, ({"structural_tag": json.dumps(tag.model_dump())}, call, "Sure"))
    assert_obeys(manager, TUPLE)


def test_masks_of_all_compilers_are_one_engines(manager: StructuredOutputManager) -> None:
    """The first one's masks are filled by all of them."""
    grammars = [compiled(manager, **ALL[name][0]) for name in ("plain", "tuple")]
    first = manager.backend
    masks = made_mask(manager)
    tokens = []
    for grammar in grammars:
        grammar.fill_bitmask(masks, 0)
        tokens.append(masks[0].clone())
    assert manager.backend is first
    assert not tokens[0].equal(tokens[1])


@pytest.mark.parametrize(
    ("grammar", "picked", "name"),
    [
        ({"json": BOOLEAN}, "xgrammar", "xgrammar"),
        ({"json": {"not": BOOLEAN}}, "xgrammar", "guidance"),
        ({"json": {"patternProperties": {}}}, "outlines", "guidance"),
        ({"regex": "a"}, "outlines", "outlines"),
        ({"json": {"not": BOOLEAN}}, "guidance", "guidance"),
    ],
)
def test_the_compiler_that_enforces_is_taken(
    grammar: dict[str, Any], picked: str, name: str
) -> None:
    params = StructuredOutputsParams(**grammar)
    params._backend, params._backend_was_auto = picked, True
    assert enforcing(params) == name
    params._backend_was_auto = False
    assert enforcing(params) == picked
