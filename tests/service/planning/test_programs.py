"""``logit_control`` and ``logit_bias``: each bad value is refused with its JSON path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from logit_processors.checks import ControlError
from logit_processors.control import Server, between
from logit_processors.program import NO_PROGRAM, Program
from service.api.validation import from_validation
from service.planning.programs import build_program
from service.schemas.control import LogitControl
from tests.entries import (
    bias_text,
    bias_token,
    program_of,
    steer_logits,
    suppress_text,
    suppress_token,
)

VOCAB = 100


class Body(BaseModel):
    """The part of a request body that is looked at here."""

    logit_control: LogitControl | None = None
    logit_bias: dict[str, float] | None = None


def parsed(text: str, vocab_size: int = VOCAB) -> Program:
    """Parse a request's JSON text, as FastAPI does."""
    body = Body.model_validate(json.loads(text))
    server = Server(
        vocab_size,
        lambda text: [ord(letter) - ord("a") for letter in text.strip()],
        lambda name: f"#{name}",
        lambda name: f"#{name}",
        lambda _: [],
    )
    return build_program(body.logit_control, body.logit_bias, server)


def refused(text: str) -> tuple[str | None, str]:
    """Return param and message of the refusal."""
    try:
        parsed(text)
    except ValidationError as error:
        # FastAPI puts the place of the value, "body", before the path.
        placed = [{**e, "loc": ("body", *e["loc"])} for e in error.errors()]
        answer = from_validation(placed)
        return answer.param, answer.message
    except ControlError as control_error:
        return control_error.param, control_error.message
    raise AssertionError(f"accepted: {text[:300]}")


def entries(kind: str, *items: str) -> str:
    return f'{{"logit_control": {{"{kind}": [{", ".join(items)}]}}}}'


def force(value: str) -> str:
    return f'{{"logit_control": {{"force": {value}}}}}'


def many(item: str, count: int) -> list[str]:
    return [item] * count


BIAS = '{"token_id": 1, "add": 1}'
FIRST = "logit_control.bias[0]"
BAD = [
    # JSON of a bias entry, the field it goes under, words of the message
    ('{"token_id": 1, "add": NaN}', ".add", ["nan", "finite"]),
    ('{"token_id": 1, "add": Infinity}', ".add", ["inf", "finite"]),
    ('{"token_id": 1, "add": 1e999}', ".add", ["inf", "finite"]),
    ('{"token_id": 1, "add": -1e999}', ".add", ["-inf", "finite"]),
    ('{"token_id": 1, "add": 101}', ".add", ["101", "100"]),
    ('{"token_id": 1, "add": -101}', ".add", ["-101", "-100"]),
    ('{"token_id": 1, "add": 100.00001}', ".add", ["100.00001", "100"]),
    ('{"token_id": 1, "add": true}', ".add", ["true", "number"]),
    ('{"token_id": 1, "add": "1"}', ".add", ["'1'", "number"]),
    ('{"token_id": 1, "add": null}', ".add", ["null", "number"]),
    ('{"token_id": 1, "add": [1]}', ".add", ["number"]),
    ('{"token_id": 1}', ".add", ["required"]),
    ('{"token_id": true, "add": 1}', ".token_id", ["true", "integer"]),
    ('{"token_id": 1.0, "add": 1}', ".token_id", ["1.0", "integer"]),
    ('{"token_id": "1", "add": 1}', ".token_id", ["'1'", "integer"]),
    ('{"token_id": -1, "add": 1}', ".token_id", ["-1", "0"]),
    ('{"token_id": 100, "add": 1}', ".token_id", ["100", "0 to 99"]),
    ('{"token_id": 1, "add": 1, "weight": 2}', ".weight", ["not permitted"]),
    ('{"token_id": 1, "text": "a", "add": 1}', "", ["exactly one", "token_id", "text"]),
    ('{"add": 1}', "", ["exactly one", "token_id", "text"]),
    ('{"token_id": 1, "ignore_case": true, "add": 1}', "", ["ignore_case", "text"]),
    ('{"text": "a", "ignore_case": 1, "add": 1}', ".ignore_case", ["1", "boolean"]),
    ('{"text": "", "add": 1}', ".text", ["empty"]),
    ('{"text": 3, "add": 1}', ".text", ["3", "string"]),
    ('{"text": "\\ud800", "add": 1}', ".text", ["surrogate"]),
    ('{"text": "a\\ufffd", "add": 1}', ".text", ["U+FFFD"]),
    (json.dumps({"text": "x" * 257, "add": 1}), ".text", ["257", "256"]),
    (json.dumps({"text": "海" * 86, "add": 1}), ".text", ["258", "256"]),
    ('{"text": "a", "add": 1, "when": {"from": 3, "until": 3}}', ".when.until", ["3", "above"]),
    ('{"text": "a", "add": 1, "when": {"from": 3, "until": 1}}', ".when.until", ["1", "above"]),
    ('{"text": "a", "add": 1, "when": {"until": 0}}', ".when.until", ["0", "above"]),
    ('{"text": "a", "add": 1, "when": {"until": -1}}', ".when.until", ["-1", "above"]),
    ('{"text": "a", "add": 1, "when": {"from": -1}}', ".when.from", ["-1", "0"]),
    ('{"text": "a", "add": 1, "when": {"from": 4294967296}}', ".when.from", ["4294967296", "2^31"]),
    ('{"text": "a", "add": 1, "when": {"from": null}}', ".when.from", ["null", "residual"]),
    ('{"text": "a", "add": 1, "when": {"from_": 1}}', ".when.from_", ["not permitted"]),
    ('{"text": "a", "add": 1, "when": 3}', ".when", []),
    ("3", "", []),
    ("null", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "field", "words"), BAD, ids=[entry[:60] for entry, _, _ in BAD])
def test_a_bad_bias_entry_is_refused_at_its_path(entry: str, field: str, words: list[str]) -> None:
    param, message = refused(entries("bias", entry))
    assert param == FIRST + field
    assert all(word in message for word in words), message
    # Where it stands in the list is told too.
    assert refused(entries("bias", BIAS, BIAS, entry))[0] == f"logit_control.bias[2]{field}"


BODIES = [
    (entries("suppress", '{"token_id": 1, "add": 1}'), "logit_control.suppress[0].add"),
    (entries("suppress", '{"token_id": 100}'), "logit_control.suppress[0].token_id"),
    (entries("suppress", "{}"), "logit_control.suppress[0]"),
    (entries("suppress", '{"text": ""}'), "logit_control.suppress[0].text"),
    (entries("steer", '{"vector": "v"}'), "logit_control.steer[0].strength"),
    (entries("steer", '{"strength": 1}'), "logit_control.steer[0].vector"),
    (entries("steer", '{"vector": 3, "strength": 1}'), "logit_control.steer[0].vector"),
    (entries("steer", '{"vector": "v", "strength": NaN}'), "logit_control.steer[0].strength"),
    (entries("steer", '{"vector": "v", "strength": 1001}'), "logit_control.steer[0].strength"),
    (entries("steer", '{"vector": "v", "strength": 1, "at": "x"}'), "logit_control.steer[0].at"),
    (entries("steer", '{"vector": "v", "strength": 1, "layers": [1]}'), "logit_control.steer[0]"),
    (
        entries("steer", '{"vector": "v", "strength": 1, "when": {"from": -1}}'),
        "logit_control.steer[0].when.from",
    ),
    (
        entries("steer", '{"vector": "v", "strength": 1, "when": {"until": 0}}'),
        "logit_control.steer[0].when.until",
    ),
    (entries("biases", BIAS), "logit_control.biases"),
    (entries("bias", *many(BIAS, 1025)), "logit_control.bias"),
    (entries("suppress", *many('{"token_id": 1}', 1025)), "logit_control.suppress"),
    (entries("bias", *many('{"text": "a", "add": 1}', 65)), "logit_control"),
    (force("{}"), "logit_control.force"),
    (force('{"token_ids": [1], "text": "a"}'), "logit_control.force"),
    (force('{"token_ids": []}'), "logit_control.force.token_ids"),
    (force('{"token_ids": [1, -1]}'), "logit_control.force.token_ids[1]"),
    (force('{"token_ids": [1, 100]}'), "logit_control.force.token_ids[1]"),
    (force('{"token_ids": [true]}'), "logit_control.force.token_ids[0]"),
    (force(f'{{"token_ids": {[1] * 16_385}}}'), "logit_control.force.token_ids"),
    (force('{"text": ""}'), "logit_control.force.text"),
    (force('{"text": " "}'), "logit_control.force.text"),
    (force(f'{{"text": "{"a" * 16_385}"}}'), "logit_control.force"),
    (force('{"text": "b"}, "suppress": [{"token_id": 1}]'), "logit_control.force"),
    ('{"logit_control": []}', "logit_control"),
    ('{"logit_control": "bias"}', "logit_control"),
    ('{"logit_control": {"bias": {}}}', "logit_control.bias"),
    ('{"logit_control": {"bias": null}}', "logit_control.bias"),
    ('{"logit_bias": {"abc": 1}}', "logit_bias['abc']"),
    ('{"logit_bias": {"1.0": 1}}', "logit_bias['1.0']"),
    ('{"logit_bias": {"-1": 1}}', "logit_bias['-1']"),
    ('{"logit_bias": {"": 1}}', "logit_bias['']"),
    ('{"logit_bias": {"+1": 1}}', "logit_bias['+1']"),
    ('{"logit_bias": {" 1": 1}}', "logit_bias[' 1']"),
    ('{"logit_bias": {"1_0": 1}}', "logit_bias['1_0']"),
    ('{"logit_bias": {"٣": 1}}', "logit_bias['٣']"),
    ('{"logit_bias": {"²": 1}}', "logit_bias['²']"),
    ('{"logit_bias": {"100": 1}}', "logit_bias['100']"),
    ('{"logit_bias": {"1": 1, "01": 1}}', "logit_bias['01']"),
    ('{"logit_bias": {"1": 101}}', "logit_bias['1']"),
    ('{"logit_bias": {"1": NaN}}', "logit_bias['1']"),
    ('{"logit_bias": {"1": 1e999}}', "logit_bias['1']"),
]


@pytest.mark.parametrize(("body", "path"), BODIES, ids=[body[:70] for body, _ in BODIES])
def test_a_bad_body_is_refused_at_its_path(body: str, path: str) -> None:
    param, message = refused(body)
    assert param == path
    assert message


def test_entries_are_counted_together() -> None:
    body = {
        "logit_control": {
            "bias": [{"token_id": 1, "add": 1}] * 1000,
            "suppress": [{"token_id": 1}] * 25,
        }
    }
    param, message = refused(json.dumps(body))
    assert param == "logit_control"
    assert "1025" in message
    assert "1024" in message


def test_too_long_a_logit_bias_is_named_itself() -> None:
    body = json.dumps({"logit_bias": {str(i): 1 for i in range(1025)}})
    with pytest.raises(ControlError) as caught:
        parsed(body, 2000)
    assert caught.value.param == "logit_bias"


def test_suppressing_everything_is_refused() -> None:
    body = json.dumps({"logit_control": {"suppress": [{"token_id": i} for i in range(9)]}})
    assert parsed(body, 10).entries
    with pytest.raises(ControlError) as caught:
        parsed(body, 9)
    assert caught.value.param == "logit_control.suppress"


@pytest.mark.parametrize(
    "text",
    [
        entries("bias", f'{{"token_id": 1{"0" * 3000}, "add": 1}}'),
        entries("bias", f'{{"text": "a", "add": 1, "when": {{"from": 1{"0" * 3000}}}}}'),
        entries("bias", f'{{"text": "a", "add": 1, "when": {{"until": -1{"0" * 3000}}}}}'),
        entries("bias", f'{{"token_id": 1, "add": "{"x" * 3000}"}}'),
        entries("bias", f'{{"token_id": 1, "add": 1, "{"k" * 3000}": 1}}'),
        json.dumps({"logit_bias": {"9" * 3000: 1}}),
    ],
    ids=["token_id", "from", "until", "value", "key", "logit_bias"],
)
def test_no_more_than_200_characters_are_echoed(text: str) -> None:
    param, message = refused(text)
    assert len(param or "") < 300
    assert len(message) < 600
    assert not any(c * 201 in message for c in "0xk9")


def test_what_is_asked_becomes_the_program() -> None:
    body = {
        "logit_control": {
            "bias": [
                {"token_id": 7, "add": -2},
                {"text": " ocean", "add": 4.0, "ignore_case": True},
                {"token_id": 7, "add": 100, "when": {"from": 2, "until": None}},
            ],
            "suppress": [{"token_id": 99}, {"text": "As an AI", "when": {"until": 64}}],
            "steer": [{"vector": "calm", "strength": 1.5, "at": "logits", "when": None}],
        },
        "logit_bias": {"12": -100, "0": 3.5},
    }
    assert parsed(json.dumps(body)) == program_of(
        token_bias=(
            bias_token(7, -2.0),
            bias_token(7, 100.0, between(2)),
            bias_token(12, -100.0),
            bias_token(0, 3.5),
        ),
        text_bias=(bias_text(" ocean", 4.0, True),),
        steer=(steer_logits("#calm", 1.5),),
        token_suppress=(suppress_token(99),),
        text_suppress=(suppress_text("As an AI", when=between(0, 64)),),
    )


def test_force_becomes_the_tokens_that_come_first() -> None:
    assert parsed(force('{"token_ids": [7, 99]}')) == program_of(force=(7, 99))
    assert parsed(force('{"text": "abc"}')) == program_of(force=(0, 1, 2))
    assert parsed(force("null")) == NO_PROGRAM


@pytest.mark.parametrize(
    "body",
    [{}, {"logit_control": None}, {"logit_control": {}}, {"logit_control": {"bias": []}},
     {"logit_bias": {}}, {"logit_bias": None}],
)  # fmt: skip
def test_asking_for_nothing_is_no_program(body: dict[str, Any]) -> None:
    assert parsed(json.dumps(body)) == NO_PROGRAM
