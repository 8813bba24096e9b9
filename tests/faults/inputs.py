"""What no client should send: each input in words, as bytes, and the answer it is to get."""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from tests.integration.servers import MODEL

VOCABULARY = 49152
"""Tokens of the embedded model, and logits: it pads none."""
BODY_LIMIT = 16 << 20
CHAT, COMPLETION, SCORE, LENS = (
    *("/v1/chat/completions", "/v1/completions"),
    *("/v1/score", "/v1/lens"),
)
END = [{"token_id": 0}, {"token_id": 2}]
"""The tokens at which the model ends a text."""


@dataclass(frozen=True)
class Case:
    """One input."""

    name: str
    request: str
    """It in words, as Markdown."""
    body: bytes
    expected: str
    """What :func:`tests.faults.test_inputs.outcome` makes of the answer."""
    path: str = CHAT
    method: str = "POST"
    media_type: str = "application/json"
    like: bytes | None = None
    """Another body, to which the answer is to be the same."""


def refused(param: str, status: int = 400) -> str:
    """Return the outcome of a refusal that names a field."""
    return f"{status} `{param}`"


def as_json(number: str = "", **fields: Any) -> bytes:
    """Return fields as JSON, with ``number`` as it is spelled wherever they have "NUMBER"."""
    return json.dumps(fields).replace('"NUMBER"', number).encode()


def chat(number: str = "", **fields: Any) -> bytes:
    """Return a short chat with fields of its own."""
    messages = [{"role": "user", "content": "Hi"}]
    return as_json(number, **{"model": MODEL, "messages": messages, "max_tokens": 2, **fields})


def completion(**fields: Any) -> bytes:
    """Return a short greedy completion with fields of its own."""
    plain = {"model": MODEL, "prompt": "Hi", "max_tokens": 4, "temperature": 0}
    return as_json(**{**plain, **fields})


def bias(add: Any = 1, token_id: Any = 5, number: str = "") -> bytes:
    """Return a chat with one bias."""
    return chat(number, logit_control={"bias": [{"token_id": token_id, "add": add}]})


def steer(strength: float) -> dict[str, Any]:
    """Return control that steers along the vector that the tests store."""
    return {"steer": [{"vector": "inputs", "strength": strength}]}


def tokens(ids: range) -> list[dict[str, Any]]:
    """Return one entry a token."""
    return [{"token_id": token_id} for token_id in ids]


def upload(name: str, request: str, body: bytes, param: str = "body", status: int = 400) -> Case:
    """Return the upload of a file that is no vector, under a name of its own."""
    path = f"/v1/vectors/{name}"
    return Case(
        name, request, body, refused(param, status), path, "PUT", "application/octet-stream"
    )


def file(header: dict[str, Any], data: bytes = b"") -> bytes:
    """Return a safetensors file as its format has it, whatever the header says."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(size: int = 2304, kind: str = "F32", width: int = 4) -> dict[str, Any]:
    """Return a header's entry for so many bytes."""
    return {"dtype": kind, "shape": [size // width], "data_offsets": [0, size]}


def floats(value: float, count: int = 576) -> bytes:
    """Return the same number so many times, as float32."""
    return struct.pack("<f", value) * count


ADD, TOKEN = "logit_control.bias[0].add", "logit_control.bias[0].token_id"
STRENGTH = "logit_control.steer[0].strength"
TEXT = "messages[0].content"
CHAIN = "\n".join(f"r{at} ::= r{at + 1} | [a-z] r{at + 1}" for at in range(500))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

CASES = (
    Case("add-nan", "a bias of NaN", bias(nan), refused(ADD)),
    Case("add-infinity", "a bias of Infinity", bias(inf), refused(ADD)),
    Case("add-1e999", "a bias of 1e999", bias("NUMBER", number="1e999"), refused(ADD)),
    Case("add-101", "a bias of 101", bias(101), refused(ADD)),
    Case("add-minus-101", "a bias of -101", bias(-101), refused(ADD)),
    Case("token-minus-1", "a bias on token -1", bias(token_id=-1), refused(TOKEN)),
    Case("token-width", "a bias on the token after the last", bias(token_id=VOCABULARY),
         refused(TOKEN)),
    Case("token-2-to-70", "a bias on token 2^70", bias(token_id=2**70), refused(TOKEN)),
    Case("token-long-text", "a bias on a token named by 5000 characters",
         bias(token_id="x" * 5000), refused(TOKEN)),
    Case("bias-1025", "1025 biases",
         chat(logit_control={"bias": [{"token_id": 1, "add": 1}] * 1025}),
         refused("logit_control.bias")),
    Case("logit-bias-abc", '`logit_bias` of `"abc"`', chat(logit_bias={"abc": 1}),
         refused("logit_bias['abc']")),
    Case("logit-bias-1.0", '`logit_bias` of `"1.0"`', chat(logit_bias={"1.0": 1}),
         refused("logit_bias['1.0']")),
    Case("logit-bias-twice", '`logit_bias` of `"1"` and `"01"`',
         chat(logit_bias={"1": 1, "01": 1}), refused("logit_bias['01']")),
    Case("unknown-field", "an unknown field in `logit_control`",
         chat(logit_control={"unknown": []}), refused("logit_control.unknown")),
    Case("unknown-long-field", "an unknown field with a name of 5000 characters",
         chat(logit_control={"x" * 5000: []}), refused(f"logit_control.{'x' * 40}…")),
    Case("control-misspelt", "`logit_controls`", chat(logit_controls={"bias": [1]}),
         refused("logit_controls")),
    Case("control-misplaced", "`suppress` at the top level", chat(suppress=[{"text": "a"}]),
         refused("suppress")),
    Case("control-elsewhere", "`guided_json`, which older servers know",
         chat(guided_json={"type": "integer"}), refused("guided_json")),
    Case("control-sampler", "`dry_multiplier` of 0.8", chat(dry_multiplier=0.8),
         refused("dry_multiplier")),
    Case("unknown-many", "300 unknown fields",
         chat("", **{f"own{at}": at for at in range(300)}), refused("body")),
    Case("suppress-vocabulary", "the whole vocabulary suppressed",
         chat(logit_control={"suppress": tokens(range(VOCABULARY))}),
         refused("logit_control.suppress")),
    Case("suppress-allowed", "all of `allowed_token_ids` suppressed",
         chat(allowed_token_ids=[7, 8, 9], logit_control={"suppress": tokens(range(7, 10))}),
         refused("logit_control.suppress")),
    Case("suppress-grammar", "every token suppressed that a grammar allows, in a stream",
         chat(stream=True, structured_outputs={"choice": ["yes", "no"]},
              logit_control={"suppress": [{"text": "y"}, {"text": "n"}]}),
         "200, then in the stream an error `logit_control.suppress`"),
    Case("suppress-end", "the end of the text suppressed, biased by 100, and no `max_tokens`",
         chat(max_tokens=None, temperature=0,
              messages=[{"role": "user", "content": "sea " * 960}],
              logit_control={"suppress": END, "bias": [{**end, "add": 100} for end in END]}),
         "200, `finish_reason` `length`"),
    Case("force-nothing", "an empty list of tokens forced",
         chat(logit_control={"force": {"token_ids": []}}),
         refused("logit_control.force.token_ids")),
    Case("force-width", "the token after the last forced",
         chat(logit_control={"force": {"token_ids": [1, VOCABULARY]}}),
         refused("logit_control.force.token_ids[1]")),
    Case("force-both", "tokens and a text forced",
         chat(logit_control={"force": {"token_ids": [1], "text": "a"}}),
         refused("logit_control.force")),
    Case("strength-nan", "steering with strength NaN", chat(logit_control=steer(nan)),
         refused(STRENGTH)),
    Case("strength-infinity", "steering with strength Infinity",
         chat(logit_control=steer(inf)), refused(STRENGTH)),
    Case("strength-1e38", "steering with strength 1e38", chat(logit_control=steer(1e38)),
         refused(STRENGTH)),
    Case("strength-0", "steering with strength 0", completion(logit_control=steer(0)),
         "200, `finish_reason` `length`, as without it", COMPLETION, like=completion()),
    Case("min-over-max", "`min_tokens` 3, `max_tokens` 2", chat(min_tokens=3),
         refused("min_tokens")),
    Case("presence-penalty-3", "`presence_penalty` of 3", chat(presence_penalty=3),
         refused("presence_penalty")),
    Case("min-p-2", "`min_p` of 2", chat(min_p=2), refused("min_p")),
    Case("n-million", "`n` of 10^6", chat(n=10**6), refused("n")),
    Case("prompts-100000", "10^5 prompts", completion(prompt=["a"] * 10**5), refused("prompt"),
         COMPLETION),
    Case("budget", "rows beyond a request's bytes",
         chat(max_tokens=900, distribution={"top_k": "all", "encoding": "json"}),
         refused("distribution")),
    Case("top-k-0", "`distribution.top_k` of 0", chat(distribution={"top_k": 0}),
         refused("distribution.top_k")),
    Case("top-k-minus-1", "`distribution.top_k` of -1", chat(distribution={"top_k": -1}),
         refused("distribution.top_k")),
    Case("top-k-beyond", "`distribution.top_k` of one more than the vocabulary",
         chat(distribution={"top_k": VOCABULARY + 1}), refused("distribution.top_k")),
    Case("top-k-some", '`distribution.top_k` of `"some"`', chat(distribution={"top_k": "some"}),
         refused("distribution.top_k")),
    Case("logprobs-minus-2", "`logprobs` of -2", completion(logprobs=-2), refused("logprobs"),
         COMPLETION),
    Case("top-logprobs-billion", "`top_logprobs` of 10^9",
         chat(logprobs=True, top_logprobs=10**9), refused("top_logprobs")),
    Case("prompt-logprobs-minus-7", "`prompt_logprobs` of -7", completion(prompt_logprobs=-7),
         refused("prompt_logprobs"), COMPLETION),
    Case("digits-5000", "an integer of 5000 digits", chat("9" * 5000, n="NUMBER"),
         refused("n")),
    Case("deep", "JSON 10^5 deep", b'{"messages":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
         refused("body")),
    Case("regex", "a regular expression of 10^5 alternatives",
         chat(structured_outputs={"regex": "(a|b)" * 10**5}), refused("structured_outputs.regex")),
    Case("regex-optional", "a regular expression of 1000 optional parts",
         chat(structured_outputs={"regex": "(a?)" * 1000}), refused("structured_outputs.regex")),
    Case("schema-deep", "a JSON schema 2000 deep, in a text",
         chat(structured_outputs={"json": '{"items":' * 2000 + "{}" + "}" * 2000}),
         refused("structured_outputs.json")),
    Case("schema-enum", "a JSON schema of 10^5 values",
         chat(structured_outputs={"json": {"enum": list(range(10**5))}}),
         refused("structured_outputs.json.enum")),
    Case("regex-any", "a regular expression of 40 optional characters",
         chat(structured_outputs={"regex": ".?" * 40}), refused("structured_outputs")),
    Case("grammar-chain", "a grammar of 500 rules, each of which may go on with the next",
         chat(structured_outputs={"grammar": f'root ::= r0\n{CHAIN}\nr500 ::= "x"'}),
         refused("structured_outputs")),
    Case("schema-million", "a JSON schema of up to 10^6 items",
         chat(structured_outputs={
             "json": {"allOf": [{"type": "array", "items": {}, "maxItems": 10**6}, {}]}}),
         refused("structured_outputs")),
    Case("schema-malformed", "a JSON schema whose `patternProperties` are a list",
         chat(structured_outputs={"json": {"patternProperties": ["x"]}}),
         refused("structured_outputs.json.patternProperties")),
    Case("schema-none", "a `response_format` of a JSON schema without the schema",
         chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}}),
         refused("response_format.json_schema.schema")),
    Case("tag", "a structural tag of nothing", chat(structured_outputs={"structural_tag": "{}"}),
         refused("structured_outputs")),
    Case("format", "a `response_format` that there is not", chat(response_format={"type": "xml"}),
         refused("response_format.type")),
    Case("tool-choice", "a tool chosen that is not there",
         chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
         refused("tool_choice")),
    Case("tool-parameters", "a tool whose parameters are a list",
         chat(tools=[{"type": "function", "function": {"name": "f", "parameters": [1]}}]),
         refused("tools[0].function.parameters")),
    Case("template", "a chat template of the client's", chat(chat_template="{{ 7 * 7 }}"),
         refused("chat_template")),
    Case("seed-2-to-70", "a `seed` of 2^70", chat(seed=2**70), refused("seed")),
    Case("max-tokens-2-to-70", "`max_tokens` of 2^70", chat(max_tokens=2**70),
         refused("max_tokens")),
    Case("max-tokens-0", "`max_tokens` of 0", chat(max_tokens=0), refused("max_tokens")),
    Case("temperature-nan", "a temperature of NaN", chat(temperature=nan), refused("temperature")),
    Case("frequency-infinity", "`frequency_penalty` of Infinity", chat(frequency_penalty=inf),
         refused("frequency_penalty")),
    Case("stops", "1000 texts to stop at", chat(stop=[str(at) for at in range(1000)]),
         refused("stop")),
    Case("stop-empty", "an empty text to stop at", chat(stop=[""]), refused("stop")),
    Case("stop-id", "a token to stop at that is none", chat(stop_token_ids=[10**9]),
         refused("stop_token_ids")),
    Case("allowed-id", "an allowed token that is none", chat(allowed_token_ids=[-1]),
         refused("allowed_token_ids")),
    Case("prompt-id", "a prompt of token -1", completion(prompt=[-1]), refused("prompt[0]"),
         COMPLETION),
    Case("prompt-id-2-to-70", "a prompt of token 2^70", completion(prompt=[2**70]),
         refused("prompt[0]"), COMPLETION),
    Case("prompt-nothing", "an empty prompt", completion(prompt=""), refused("prompt"),
         COMPLETION),
    Case("prompt-long", "a prompt longer than the context", completion(prompt="sea " * 5000),
         refused("prompt"), COMPLETION),
    Case("surrogate", "half a surrogate pair in the text",
         chat(messages=[{"role": "user", "content": "\ud800"}]), refused(TEXT)),
    Case("content-number", "a part of a message whose text is a number",
         chat(messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}]),
         refused(f"{TEXT}[0].text")),
    Case("nul", "a NUL in the text", chat(messages=[{"role": "user", "content": "a\0b"}]),
         refused(TEXT)),
    Case("too-large", "a body of one byte over the limit", b"x" * (BODY_LIMIT + 1),
         refused("body", 413)),
    Case("media-type", "a chat as `text/plain`", chat(), refused("content-type", 415),
         media_type="text/plain"),
    Case("score-none", "no continuations to score", as_json(prompt="Hi", continuations=[]),
         refused("continuations"), SCORE),
    Case("score-empty", "an empty continuation to score", as_json(prompt="Hi", continuations=[""]),
         refused("continuations[0]"), SCORE),
    Case("lens-layer", "a lens on layer 999", as_json(prompt="Hi", layers=[999]),
         refused("layers[0]"), LENS),
    Case("lens-position", "a lens on a position beyond the text",
         as_json(prompt="Hi", positions=[5000]), refused("positions[0]"), LENS),
    Case("lens-k", "a lens of one token more than the vocabulary",
         as_json(prompt="Hi", k=VOCABULARY + 1), refused("k"), LENS),
    upload("v-empty", "a vector of no bytes", b""),
    upload("v-text", "a vector that is a text", b"no file of any kind", status=415),
    upload("v-pickle", "a vector that is a pickle", pickle.dumps([1.0]), status=415),
    upload("v-header", "a vector whose header claims 2^64 - 1 bytes", b"\xff" * 8 + b"{}"),
    upload("v-shape", "a vector of 2^40 numbers that are not there",
           file({"direction": tensor(4 << 40)})),
    upload("v-cut", "a vector cut short",
           file({"direction": tensor()}, floats(1))[:-1]),
    upload("v-overlap", "a vector of two layers in the same bytes",
           file({"layer.1": tensor(), "layer.2": tensor()}, floats(1))),
    upload("v-nan", "a vector with NaN", file({"direction": tensor()}, floats(nan))),
    upload("v-zero", "a vector of zeros", file({"direction": tensor()}, floats(0))),
    upload("v-width", "a vector of one number too many",
           file({"direction": tensor(2308)}, floats(1, 577))),
    upload("v-integers", "a vector of integers",
           file({"direction": tensor(4608, "I64", 8)}, bytes(4608))),
    upload("v-layer", "a vector of a layer that the model has not",
           file({"layer.30": tensor()}, floats(1))),
    upload("v-name", "a tensor of another name", file({"weight": tensor()}, floats(1))),
    upload("v-gguf", "a GGUF file of version 2^32 - 1", b"GGUF" + b"\xff" * 100),
    upload("V-Name", "a vector under a name in capitals",
           file({"direction": tensor()}, floats(1)), param="name"),
)  # fmt: skip
