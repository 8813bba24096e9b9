"""Converts the embedded model's GGUF file to a folder that the engine reads.

Transformers can do the same, in 30 s instead of 4: it parses the file's metadata seven times, each
time string by string. A test under ``--full`` compares the two, file by file.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.gguf_header import GgufHeader, TensorInfo, read_header

_MAX_ENTRIES = 1 << 18
"""The file has 150,000: three lists of the tokenizer, and the tensors."""
_CONTROL_TOKEN = 3
"""GGUF's ``token_type`` of control tokens, which have no text."""
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(gguf: Path, folder: Path, weights: str) -> None:
    """Write weights in bfloat16, configuration, tokenizer and chat template into a folder.

    Args:
        gguf: the model's file.
        folder: an empty one.
        weights: name of the file of weights in it.

    """
    data = gguf.read_bytes()
    header = read_header(data, _MAX_ENTRIES)
    fields = header.fields
    _write_weights(data, header, folder / weights)
    _write_json(folder / "config.json", _model_config(fields))
    _write_json(folder / "generation_config.json", _special_ids(fields))
    _write_tokenizer(fields, folder)
    (folder / "chat_template.jinja").write_text(fields["tokenizer.chat_template"])


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _model_config(fields: dict[str, Any]) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "num_attention_heads": heads,
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {
            "rope_theta": fields["llama.rope.freq_base"],
            "rope_type": "default",
        },
        "tie_word_embeddings": True,
        "vocab_size": fields["llama.vocab_size"],
        **_special_ids(fields),
    }


def _special_ids(fields: dict[str, Any]) -> dict[str, int]:
    ids = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {f"{ours}_token_id": fields[f"tokenizer.ggml.{name}_token_id"]
            for ours, name in ids.items()}  # fmt: skip


def _write_weights(data: bytes, header: GgufHeader, file: Path) -> None:
    from safetensors import TensorSpec, serialize_file

    heads = {
        "attn_q": header.fields["llama.attention.head_count"],
        "attn_k": header.fields["llama.attention.head_count_kv"],
    }
    weights: dict[str, NDArray[np.uint16]] = {}
    for tensor in header.tensors:
        block, part = _parts(tensor.name)
        values = _dequantize(data, tensor)
        if part in heads:
            values = _unpermute(values, heads[part])
        weights[f"{block}{_NAMES[part]}.weight"] = _to_bfloat16(values)
    specs = {
        name: TensorSpec(
            dtype="bfloat16", shape=bits.shape, data_ptr=bits.ctypes.data, data_len=bits.nbytes
        )
        for name, bits in weights.items()
    }
    serialize_file(specs, file, {"format": "pt"})


def _parts(name: str) -> tuple[str, str]:
    """Return ``model.layers.<n>.`` or nothing, and the name of the tensor in its block."""
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if found is None:
        raise ValueError(f"tensor {name!r} is not one of a llama")
    return "" if found[1] is None else f"model.layers.{found[1]}.", found[2]


def _dequantize(data: bytes, tensor: TensorInfo) -> NDArray[np.float32]:
    """Return the values of a tensor, the outermost dimension first."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.kind)
    block_values, block_bytes = GGML_QUANT_SIZES[kind]
    inner, *outer = tensor.shape
    shape = (*reversed(outer), inner // block_values * block_bytes)
    packed = np.frombuffer(data, np.uint8, int(np.prod(shape)), tensor.start)
    values: NDArray[np.float32] = dequantize(packed.reshape(shape), kind)
    return values.reshape(*reversed(tensor.shape))


def _unpermute(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's order of rotary pairs: from (pair, half) to (half, pair) in each head.

    ``values`` are ``[heads * head_dim, hidden]``.
    """
    rows, hidden = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, hidden)
    return pairs.swapaxes(1, 2).reshape(rows, hidden)


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of float32 values, rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    texts = fields["tokenizer.ggml.tokens"]
    vocabulary = {text: token_id for token_id, text in enumerate(texts)}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False)
            for text, kind in zip(texts, types, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "TokenizersBackend",
            "backend": "tokenizers",
            **{
                f"{ours}_token": texts[fields[f"tokenizer.ggml.{name}_token_id"]]
                for ours, name in names.items()
            },
        },
    )
