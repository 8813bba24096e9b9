"""The ``logit_control`` field, with a field for each kind of control."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from logit_processors.control import Control, Entry, Form
from logit_processors.registry import by_field
from logit_processors.wire import MAX_ENTRIES


class StrictModel(BaseModel):
    """A model that refuses unknown fields and converts no types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _LogitControl(Form):
    """Controls of this request's logits, in the order bias, steer, suppress, force."""

    def entries(self) -> Iterator[tuple[Control[Any], Entry, str]]:
        """Yield each entry with its kind and its JSON path."""
        for field, kinds in by_field().items():
            value = getattr(self, field)
            listed: list[Any] = [] if value is None else [value]
            if isinstance(value, list):
                listed = value
            for at, entry in enumerate(listed):
                index = f"[{at}]" if isinstance(value, list) else ""
                kind = next(kind for kind in kinds if kind.takes(entry))
                yield kind, entry, f"logit_control.{field}{index}"

    def vector_names(self) -> list[str]:
        """Return the names of the vectors that entries need."""
        return [name for kind, entry, _ in self.entries() for name in kind.vectors(entry)]

    def texts(self) -> list[str]:
        """Return the texts that must be encoded."""
        return [text for kind, entry, _ in self.entries() for text in kind.texts(entry)]


def _fields() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field, kinds in by_field().items():
        form, description = kinds[0].entry, kinds[0].description or None
        if kinds[0].single:
            fields[field] = (form | None, Field(None, description=description))
        else:
            listed: Any = Field(
                default_factory=list, max_length=MAX_ENTRIES, description=description
            )
            fields[field] = (list[form], listed)  # type: ignore[valid-type]
    return fields


LogitControl = create_model(
    "LogitControl", __base__=_LogitControl, __doc__=_LogitControl.__doc__, **_fields()
)
"""The model of ``logit_control``, made of the registered controls."""
