"""Entries of the store: their descriptions for clients, and their contents, read and checked."""

from __future__ import annotations

from service.errors import BadRequestError, ConflictError, echo
from service.schemas.vector_answers import VectorAnswer
from service.vectors.content import ModelFacts, VectorContent
from service.vectors.names import public_name
from service.vectors.safetensors_file import read_safetensors
from service.vectors.store import BrokenName, Entry, StoredName

UNREADABLE = "the file of its name in the store cannot be read"


class UnusableVectorError(ConflictError):
    """A stored vector that this model cannot use."""

    def __init__(self, entry: Entry, reason: str) -> None:
        super().__init__(
            f"the vector {echo(public_name(entry.name))} cannot be used: {reason}",
            "vector",
            "vector_unusable",
        )
        self.entry = entry
        self.reason = reason


def describe(entry: Entry, model: ModelFacts, damage: str | None = None) -> VectorAnswer:
    """Return an entry's description for the API.

    Args:
        entry: an entry of the store.
        model: the served model.
        damage: the fault of its content, if one is known.

    """
    name = public_name(entry.name)
    if isinstance(entry, BrokenName):
        return {
            "id": name,
            "name": name,
            "object": "vector",
            "usable": False,
            "reason": UNREADABLE,
        }
    reason = entry.summary.misfit(model) or damage
    return {
        "id": name,
        "name": name,
        "object": "vector",
        "created": entry.created,
        "model": entry.model,
        "made_from": entry.made_from,
        "sha256": entry.sha256,
        "bytes": entry.bytes,
        **entry.summary.describe(),
        "usable": reason is None,
        "reason": reason,
    }


def read_content(entry: StoredName, data: bytes) -> VectorContent:
    """Return the content in a file; UnusableVectorError if it does not match the entry."""
    try:
        tensors, _ = read_safetensors(data)
    except BadRequestError as error:
        raise UnusableVectorError(entry, error.message) from None
    content = VectorContent({name: values.astype("<f4") for name, values in tensors.items()})
    if content.sha256 != entry.sha256:
        raise UnusableVectorError(entry, f"its content is damaged: its SHA-256 is {content.sha256}")
    return content
