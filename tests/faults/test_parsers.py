"""Anything at all to the two parsers that read what clients make: vectors' files and control.

Nothing but the errors of the tree comes out, in little memory, and what is accepted keeps its
contract. ``--full`` tries more.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from logit_processors.checks import ControlError
from logit_processors.control import Server
from logit_processors.controls.bias import MAX_ADD
from logit_processors.controls.steer import MAX_STRENGTH
from logit_processors.program import Program
from service.api.validation import from_validation
from service.errors import BadRequestError, NotFoundError, RequestError, UnsupportedMediaError
from service.planning.programs import build_program
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest
from service.vectors.content import DIRECTION, VectorContent
from service.vectors.exchange import read_upload
from service.vectors.gguf_file import write_gguf
from tests.entries import entries_of
from tests.unit_support import model_facts, safetensors

MODEL = model_facts()
EXAMPLES, EXAMPLES_FULL = 200, 20_000
MAX_MEMORY = 4 << 20
"""Bytes: many times what a vector of this model has."""
VOCABULARY = 300
SHA256 = "a" * 64

FILES = st.sampled_from(
    [
        safetensors(direction=[1, 2, 3, 4]),
        safetensors(layer_0=[1, 2, 3, 4], layer_11=[4, 3, 2, 1]),
        write_gguf(VectorContent({"layer.3": np.ones(4, np.float32)}), "llama"),
    ]
)
SIZES = st.integers(-1, 9) | st.sampled_from([2**31, 2**32, 2**63 - 1, 2**64, 2**70])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a good file with a few stretches of it replaced, left out or put in."""
    data = bytearray(draw(FILES))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)


@st.composite
def described(draw: st.DrawFn) -> bytes:
    """Return a safetensors file whose header says anything of its tensors."""
    names = st.sampled_from(["direction", "layer.0", "layer.11", "layer.12", "layer.01"])
    kinds = st.sampled_from(["F64", "F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "x"])
    tensor = st.fixed_dictionaries(
        {
            "dtype": kinds,
            "shape": st.lists(SIZES, max_size=3) | st.just([4]),
            "data_offsets": st.lists(SIZES, max_size=3) | st.just([0, 16]),
        }
    )
    header = draw(st.dictionaries(names | st.text(max_size=3), tensor, max_size=3))
    text = json.dumps(header).encode()
    length = draw(st.just(len(text)) | SIZES.filter(lambda size: 0 <= size < 2**64))
    return struct.pack("<Q", length) + text + draw(st.binary(max_size=40))


@st.composite
def counted(draw: st.DrawFn) -> bytes:
    """Return a GGUF file that claims any number of tensors and keys."""
    size = st.integers(0, 5) | st.sampled_from([2**16, 2**32, 2**63, 2**64 - 1])
    counts = struct.pack("<IQQ", draw(st.integers(0, 4)), draw(size), draw(size))
    return b"GGUF" + counts + draw(st.binary(max_size=80))


UPLOADS = st.binary(max_size=300) | damaged() | described() | counted()
NUMBERS = (
    st.integers(-2, VOCABULARY + 1)
    | st.sampled_from([2**31, 2**63, -(2**70)])
    | st.floats()
    | st.booleans()
    | st.none()
)
TEXTS = st.text(max_size=4) | st.sampled_from(["\ud800", "\ufffd", "é" * 200, "known", "other"])
VALUES = NUMBERS | TEXTS
WINDOWS = st.dictionaries(st.sampled_from(["from", "until", "x"]), VALUES, max_size=2)
ENTRY: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("token_id", "add", "strength"), VALUES),
    **dict.fromkeys(("text", "vector", "x"), VALUES),
    **{"ignore_case": st.booleans() | VALUES, "when": WINDOWS | VALUES},
    **{"at": st.sampled_from(["logits", "residual", "x"]), "layers": st.lists(NUMBERS, max_size=3)},
}
GOOD_ENTRIES: dict[str, list[dict[str, Any]]] = {
    "bias": [{"token_id": 5, "add": 1.0}, {"text": " ocean", "add": -1.0}],
    "suppress": [{"token_id": 6}, {"text": "known"}],
    "steer": [{"vector": "known", "strength": 1.0}],
}


@st.composite
def controls(draw: st.DrawFn) -> Any:
    """Return a control of good entries, each with a few fields of any value."""
    control: dict[str, Any] = {}
    for group, good in GOOD_ENTRIES.items():
        entries = [
            {**draw(st.sampled_from(good)), **draw(st.fixed_dictionaries({}, optional=few))}
            for few in draw(st.lists(st.sampled_from(_FEW), max_size=2))
        ]
        control[group] = entries
    forced = st.fixed_dictionaries({"token_ids": st.lists(NUMBERS, max_size=3)})
    extra: st.SearchStrategy[dict[str, Any]] = (
        st.just({})
        | st.fixed_dictionaries({"force": forced})
        | st.fixed_dictionaries({"x": VALUES})
    )
    return {**control, **draw(extra)}


_FEW = [{}, *({field: values} for field, values in ENTRY.items())]
JSON = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))


@pytest.fixture(scope="module")
def tried(full: bool) -> Callable[..., Any]:
    """How often each parser is tried."""
    return settings(
        max_examples=EXAMPLES_FULL if full else EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow],
    )


def test_a_file_is_a_vector_or_refused(tried: Callable[..., Any]) -> None:
    accepted = []

    @tried
    @given(UPLOADS)
    def read(data: bytes) -> None:
        tracemalloc.start()
        try:
            content = read_upload(data, MODEL).content
        except (BadRequestError, UnsupportedMediaError) as error:
            assert_told(error, "body")
        else:
            accepted.append(content)
            assert content.tensors.keys() == {DIRECTION} or max(content.layers) < MODEL.layers
            for values in content.tensors.values():
                assert values.dtype == np.float32
                assert values.shape == (MODEL.hidden_size,)
                assert np.isfinite(values).all()
                assert values.any()
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < MAX_MEMORY

    read()
    assert accepted


def test_a_control_is_a_program_or_refused(tried: Callable[..., Any]) -> None:
    accepted = []

    @tried
    @given(controls() | JSON)
    def parse(value: Any) -> None:
        try:
            control = LogitControl.model_validate(value)
            program = build_program(control, None, SERVER)
        except ValidationError as error:
            assert_told(from_validation(error.errors()))
        except (ControlError, BadRequestError, NotFoundError) as error:
            assert_told(error, "logit_control")
        else:
            accepted.append(program)
            assert is_kept(program)

    parse()
    assert any(program.entries for program in accepted)


def test_a_distribution_is_one_or_refused(tried: Callable[..., Any]) -> None:
    fields = {field: VALUES | st.just("all") for field in DistributionRequest.model_fields}

    @tried
    @given(st.fixed_dictionaries({}, optional=fields) | JSON)
    def parse(value: Any) -> None:
        try:
            asked = DistributionRequest.model_validate(value)
        except ValidationError as error:
            assert_told(from_validation(error.errors()))
        else:
            assert asked.top_k == "all" or asked.top_k >= 1
            assert asked.top_p is None or 0 < asked.top_p <= 1

    parse()


def assert_told(error: RequestError | ControlError, param: str = "") -> None:
    """Assert that a refusal names a field, one that begins with ``param``, and is short."""
    assert error.param
    assert error.param.startswith(param)
    assert len(error.message) < 4000


def content_of(name: str) -> str:
    """Return the content of the one vector that there is."""
    if name != "known":
        raise NotFoundError("there is no such vector")
    return SHA256


def layers_of(content: str) -> list[int]:
    """Return the layers of that vector."""
    return [0, 1] if content == SHA256 else []


def encode(text: str) -> list[int]:
    """Return a text's bytes for its tokens."""
    return list(text.encode())


SERVER = Server(VOCABULARY, encode, content_of, content_of, layers_of)


def is_kept(program: Program) -> bool:
    """Say whether a program holds what the contract says it may, and survives the wire."""
    biases = [*entries_of(program, "token_bias"), *entries_of(program, "text_bias")]
    steers = entries_of(program, "steer_logits")
    named = [*biases, *entries_of(program, "token_suppress")]
    tokens = [entry.token_id for entry in named if entry.token_id is not None]
    tokens += [token for entry in entries_of(program, "force") for token in entry.token_ids]
    return (
        all(0 <= token < VOCABULARY for token in tokens)
        and all(abs(entry.add) <= MAX_ADD for entry in biases)
        and all(abs(entry.strength) <= MAX_STRENGTH for entry in steers)
        and all(entry.vector == SHA256 for entry in steers)
        and Program.from_wire(program.to_wire()) == program
    )
