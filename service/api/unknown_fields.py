"""Unknown fields of a request.

A field that looks like a control or a constraint is refused, and the error names the right field:
otherwise the client could not see that it had no effect. Other fields are ignored, and the answer
lists them.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import quote

from pydantic import BaseModel

from service.api.foreign import FOREIGN, Foreign
from service.api.requests import ChatRequest, TextRequest
from service.api.spelling import nearest
from service.errors import BadRequestError, echo
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest

HEADER = "x-sensefield-ignored-fields"
"""The header that lists the ignored fields."""
CODE = "unknown_field"
ROUTES = frozenset(
    {
        *("/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions"),
        *("/v1/responses", "/v1/messages", "/v1/score", "/v1/lens", "/invocations"),
    }
)
"""Routes that generate, or read the model under control."""
MAX_LISTED = 20
MAX_NAME = 80
_OWN = {"logit_control": LogitControl, "distribution": DistributionRequest}
_NOT_OURS = ("prompt", "top_k", "top_p")
"""Members of our fields whose names mean something else at the top level."""
_PLAIN = frozenset(
    {
        *("model", "messages", "prompt", "input", "system", "instructions", "user", "metadata"),
        *("store", "request_id", "session_id", "service_tier", "priority", "cache_salt", "include"),
        *("background", "stream_options", "documents", "suffix", "prompt_cache_key"),
    }
)
"""Fields that are no constraint: misspelt ones are ignored."""
_UNREAD = _PLAIN | {"tools"}
"""Objects whose members are not checked: clients add many of their own."""

MAX_UNKNOWN = 256
"""Most unknown fields of one request; each is compared with all known fields."""

Fields = Mapping[str, Any]
"""pydantic's fields, or types, by their names in JSON."""


def model_of(path: str, annotation: Any) -> Any:
    """Return the type of a route's body; None for routes that are not checked.

    Args:
        path: the route's path.
        annotation: the annotation of its body; None if the route chooses the type by the body.

    """
    if path not in ROUTES:
        return None
    return ChatRequest | TextRequest if annotation is None else annotation


def check_unknown(path: str, model: Any, body: dict[str, Any]) -> list[str]:
    """Return the paths of the fields that a route ignores.

    Args:
        path: the route's path.
        model: the type of its body.
        body: the JSON.

    Raises:
        BadRequestError: a field looks like a control or a constraint, or too many are unknown.

    """
    reading = _Reading(path, fields_of(model))
    reading.read(body)
    return reading.ignored


def listed(names: Sequence[str]) -> str:
    """Return the header's value; the client's names are quoted for a header."""
    quoted = [quote(name[:MAX_NAME], safe="[]") for name in names[:MAX_LISTED]]
    if len(names) > MAX_LISTED:
        quoted.append(f"and {len(names) - MAX_LISTED} more")
    return ", ".join(quoted)


def fields_of(kind: Any) -> Fields:
    """Return the fields of a model, or of all models of a union."""
    found: dict[str, Any] = {}
    for model in _models_in(kind):
        found |= _fields_of_model(model)
    return found


@cache
def _fields_of_model(model: Any) -> Fields:
    if not issubclass(model, BaseModel):
        return {each.name: each.type for each in dataclasses.fields(model) if each.init}
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return {**model.model_fields, **fields} if _takes_names(model) else fields


def _takes_names(model: type[BaseModel]) -> bool:
    return bool(model.model_config.get("populate_by_name"))


def _models_in(kind: Any) -> Iterator[type]:
    """Yield the models and data classes in a type, also inside lists."""
    if isinstance(kind, type) and not get_args(kind):
        if issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
            yield kind
    elif get_origin(kind) is Annotated:
        yield from _models_in(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType, list):
        for each in get_args(kind):
            yield from _models_in(each)


class _Reading:
    """Compares one body with the fields that its route knows."""

    def __init__(self, path: str, known: Fields) -> None:
        self._path = path
        self._known = known
        self.ignored: list[str] = []

    def read(self, body: Mapping[str, Any]) -> None:
        """Check the body's fields, and the fields inside them."""
        for name, value in body.items():
            if name in self._known:
                if name not in _UNREAD:
                    self._read_below(name, self._known[name], value)
                continue
            if not _asks_nothing(name, value, body):
                self._refuse_if_meant(name, value)
            self._ignore(name)

    def _read_below(self, path: str, field: Any, value: Any) -> None:
        if isinstance(value, list):
            for at, each in enumerate(value):
                if isinstance(each, dict | list):
                    self._read_below(f"{path}[{at}]", field, each)
            return
        known = fields_of(getattr(field, "annotation", field)) if isinstance(value, dict) else {}
        for name, below in value.items() if known else ():
            place = f"{path}.{name}"
            if name in known:
                self._read_below(place, known[name], below)
                continue
            if not _asks_nothing(place, below, {}):
                if place in FOREIGN:
                    raise _refusal(place, self._instead(FOREIGN[place]))
                if meant := nearest(name, known):
                    raise _refusal(place, f"did you mean {path}.{meant}?")
            self._ignore(place)

    def _ignore(self, path: str) -> None:
        self.ignored.append(path)
        if len(self.ignored) > MAX_UNKNOWN:
            raise BadRequestError(
                f"over {MAX_UNKNOWN} fields that this server does not know", "body", CODE
            )

    def _refuse_if_meant(self, name: str, value: Any) -> None:
        if name in FOREIGN:
            raise _refusal(name, self._instead(FOREIGN[name]))
        members = [
            (f"{own}.{member}", member)
            for own, model in _OWN.items()
            for member in fields_of(model)
            if member not in _NOT_OURS
        ]
        for place, member in members:
            if name == member:
                raise _refusal(name, f"not at the top level; use {self._placed(place)}")
        elsewhere = fields_of(ChatRequest | TextRequest)
        if name in elsewhere and name not in _PLAIN and value != _default(elsewhere[name]):
            raise _refusal(name, f"{echo(self._path)} does not know it; use {self._placed(name)}")
        spelt = [(each, each) for each in (*self._known, *_OWN) if each not in _PLAIN]
        places = {name: place for place, name in (*members, *spelt)}
        if (meant := nearest(name, places)) is not None:
            raise _refusal(name, f"did you mean {self._placed(places[meant])}?")

    def _instead(self, foreign: Foreign) -> str:
        if foreign.lacks:
            return f"this server has no {foreign.lacks}; leave it out"
        known = [use for use in foreign.use if _head(use) in self._known]
        return f"this server does not know it; use {self._placed((*known, *foreign.use)[0])}"

    def _placed(self, field: str) -> str:
        """Return a field, with the routes that know it if this one does not."""
        if _head(field) in self._known or " " in field:
            return field
        return f"{field} of /v1/chat/completions or /v1/completions"


def _asks_nothing(name: str, value: Any, body: Mapping[str, Any]) -> bool:
    """Say whether a value has no effect."""
    if value is None or value is False or value in ("", [], {}):
        return True
    foreign = FOREIGN.get(name)
    if foreign is None:
        return False
    if value is not True and value in foreign.neutral:
        return True
    if any(body.get(use) == value for use in foreign.use if use != name):
        return True
    switches = [each for each in foreign.part_of if each in body]
    return bool(switches) and all(_asks_nothing(each, body[each], {}) for each in switches)


def _head(field: str) -> str:
    return field.partition(".")[0].partition("[")[0]


def _default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)


def _refusal(path: str, message: str) -> BadRequestError:
    return BadRequestError(message, path[:MAX_NAME], CODE)
