"""Import and export of vectors: file formats and provenance."""

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
_MAX_PROVENANCE = 16_384
"""Most characters of a file's provenance metadata that are kept."""


@dataclass(frozen=True)
class NewVector:
    """A content and its origin."""

    content: VectorContent
    made_from: dict[str, Any]
    model: str | None
    """Name of the model it was made on, if known."""


def read_upload(data: bytes, model: ModelFacts) -> NewVector:
    """Read a vector of either format, recognised by its first bytes.

    Raises:
        BadRequestError: the file is empty or damaged, or the model cannot use the vector.
        UnsupportedMediaError: the file is neither safetensors nor GGUF.

    """
    if not data:
        raise BadRequestError("the body is empty; a safetensors or GGUF file is expected", "body")
    if data.startswith(MAGIC):
        layers, hint = read_gguf(data)
        origin = {"upload": "gguf"}
        if hint is not None:
            origin["model_hint"] = hint[:_MAX_PROVENANCE]
        return NewVector(check(layers, model, called="direction"), origin, None)
    if looks_like_safetensors(data):
        tensors, metadata = read_safetensors(data)
        made_from, name = _provenance(metadata)
        return NewVector(check(tensors, model), {"upload": "safetensors", **made_from}, name)
    raise UnsupportedMediaError(
        "the body is neither a safetensors file nor a GGUF control vector", "body"
    )


def export(stored: StoredName, content: VectorContent, form: Format, model: ModelFacts) -> bytes:
    """Return a vector as a file; BadRequestError if the format cannot hold it."""
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
    """Return the origin and model in the metadata of a file of ours; nothing for other files."""
    made_from = metadata.get("made_from", "")
    if metadata.get("format") != FORMAT or len(made_from) > _MAX_PROVENANCE:
        return {}, None
    try:
        origin = orjson.loads(made_from)
    except ValueError:
        return {}, None
    model = metadata.get("model")
    kept = {"origin": origin} if isinstance(origin, dict) else {}
    return kept, (model and model[:_MAX_PROVENANCE])
