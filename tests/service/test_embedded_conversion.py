"""The embedded model's conversion, beside the ``gguf`` package and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from tokenizers import Tokenizer

from service.embedded_conversion import _to_bfloat16, _unpermute, convert
from service.embedded_model import WEIGHTS, _packaged_gguf
from service.gguf_header import read_header

TEXTS = (
    "The history of the city begins in 1984, with 3 houses.\n\n\tdef f(x):  return x",
    "<|im_start|>user\nDéjà vu, 日本の🙂<|im_end|>\n",
)


def test_the_header_is_what_the_gguf_package_reads() -> None:
    data = _packaged_gguf().read_bytes()
    header = read_header(data, 1 << 18)
    reader = GGUFReader(_packaged_gguf())
    fields = {
        name: field.contents() for name, field in reader.fields.items() if "GGUF." not in name
    }
    assert header.fields == fields
    assert [(t.name, t.shape, t.kind, t.start) for t in header.tensors] == [
        (t.name, t.shape.tolist(), int(t.tensor_type), t.data_offset) for t in reader.tensors
    ]


def test_rounding_is_torchs() -> None:
    generator = np.random.default_rng(5)
    values = generator.standard_normal(10_000).astype(np.float32)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, -0.0, 2**-130], np.float32)
    for each in (values, ties):
        wanted = torch.from_numpy(each).to(torch.bfloat16).view(torch.uint16).numpy()
        assert _to_bfloat16(each).tolist() == wanted.tolist()


def test_the_halves_of_a_head_are_put_back() -> None:
    # Two heads of four rows: llama.cpp keeps row 0 beside row 2, and row 1 beside row 3.
    packed = np.array([[0], [2], [1], [3], [10], [12], [11], [13]], np.float32)
    assert _unpermute(packed, 2).ravel().tolist() == [0, 1, 2, 3, 10, 11, 12, 13]


def test_it_equals_what_transformers_converts(full: bool, tmp_path: Path) -> None:
    if not full:
        pytest.skip("only with --full: transformers converts for half a minute")
    gguf = _packaged_gguf()
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    convert(gguf, ours, WEIGHTS)
    converted_by_transformers(gguf, theirs)
    found, wanted = load_file(ours / WEIGHTS), load_file(theirs / WEIGHTS)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert torch.equal(found[name], weight), name
    one, other = (Tokenizer.from_file(str(each / "tokenizer.json")) for each in (ours, theirs))
    assert one.get_vocab() == other.get_vocab()
    for text in TEXTS:
        assert one.encode(text).ids == other.encode(text).ids
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        written, whole = (json.loads((each / name).read_text()) for each in (ours, theirs))
        assert {key: whole.get(key) for key in written} == written
    assert (ours / "chat_template.jinja").read_text() == (
        theirs / "chat_template.jinja"
    ).read_text()


def converted_by_transformers(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    dense: Any = {"dtype": torch.bfloat16, "quantization_config": GgufConfig(dequantize=True)}
    whole = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **dense)
    whole.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
