"""Vectors in and out: which format a file is, where it says it came from, files to take away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from service import __version__
from service.errors import BadRequestError, UnsupportedMediaError
from service.gguf_header import MAGIC
from service.vectors.content import ModelFacts, VectorContent, check
from service.vectors.gguf_file import read_gguf, write_gguf
from service.vectors.safetensors_file import (
    FORMAT,
    LAYERS,
    looks_like_safetensors,
    read_safetensors,
    write_safetensors,
)
from service.vectors.store import StoredName

Format = Literal["safetensors", "gguf"]
MEDIA_TYPES: dict[Format, str] = {
    "safetensors": "application/vnd.safetensors",
    "gguf": "application/octet-stream",
}
_MAX_TOLD = 16_384
"""Characters of a file's own story that are kept."""


@dataclass(frozen=True)
class Made:
    """A content and how it came to be."""

    content: VectorContent
    made_from: dict[str, Any]
    model: str | None
    """Name of the model it was made on, where that is known."""


def read_upload(data: bytes, model: ModelFacts) -> Made:
    """Read a vector of either format, told by its first bytes.

    Raises:
        BadRequestError: nothing, damaged, or not a vector that the model can use.
        UnsupportedMediaError: neither safetensors nor GGUF; nothing else is looked into.

    """
    if not data:
        raise BadRequestError("the body is empty; a safetensors or GGUF file is expected", "body")
    if data.startswith(MAGIC):
        layers, hint = read_gguf(data)
        told = {} if hint is None else {"model_hint": hint[:_MAX_TOLD]}
        return Made(check(layers, model, called="direction"), {"upload": "gguf", **told}, None)
    if looks_like_safetensors(data):
        tensors, metadata = read_safetensors(data)
        made_from, name = _provenance(metadata)
        return Made(check(tensors, model), {"upload": "safetensors", **made_from}, name)
    raise UnsupportedMediaError(
        "the body is neither a safetensors file nor a GGUF control vector", "body"
    )


def export(stored: StoredName, content: VectorContent, form: Format, model: ModelFacts) -> bytes:
    """Return a vector as a file; BadRequestError if it cannot be in that format."""
    if form == "gguf":
        return write_gguf(content, model.architecture)
    metadata = {
        "format": FORMAT,
        "version": "1",
        "layers": LAYERS,
        "sha256": stored.sha256,
        "made_from": orjson.dumps(stored.made_from).decode(),
        "created": str(stored.created),
        "created_by": f"sensefield {__version__}",
    }
    if stored.model is not None:
        metadata["model"] = stored.model
    return write_safetensors(content, metadata)


def _provenance(metadata: dict[str, str]) -> tuple[dict[str, Any], str | None]:
    """Return what a file of ours says of its making; of others' nothing is believed."""
    made_from = metadata.get("made_from", "")
    if metadata.get("format") != FORMAT or len(made_from) > _MAX_TOLD:
        return {}, None
    try:
        told = orjson.loads(made_from)
    except ValueError:
        return {}, None
    model = metadata.get("model")
    return ({"origin": told} if isinstance(told, dict) else {}), (model and model[:_MAX_TOLD])
