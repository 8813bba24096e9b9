"""``If-Match`` and ``If-None-Match`` (RFC 9110, section 13.1), against a vector's SHA-256."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from service.errors import BadRequestError, PreconditionFailedError, echo
from service.vectors.store import Entry, StoredName

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_TAGS = re.compile(rf"\s*{_TAG.pattern}\s*(,\s*{_TAG.pattern}\s*)*")
ANY = "*"
_HELP = {
    "If-Match": "SHA-256 of the content that the name must have, in quotes, or *.",
    "If-None-Match": "SHA-256 of the content that the name must not have, in quotes, or *.",
}


@dataclass(frozen=True)
class Preconditions:
    """The entity tags of a request's conditional headers; None without the header.

    A set holds entity tags without quotes; ``*`` stands for any existing vector.
    """

    match: frozenset[str] | None = None
    none_match: frozenset[str] | None = None

    def check(self, entry: Entry | None) -> None:
        """Raise PreconditionFailedError if an entry does not meet the conditions."""
        if self.match is not None and not _among(entry, self.match):
            raise PreconditionFailedError(
                "the vector is not the one that If-Match names", "if-match"
            )
        if self.none_match is not None and _among(entry, self.none_match):
            raise PreconditionFailedError(
                "there is a vector, and If-None-Match says there must be none", "if-none-match"
            )


def preconditions_of(request: Request) -> Preconditions:
    """Return a request's preconditions; BadRequestError if they are not entity tags."""
    return Preconditions(
        _tags(request, "if-match", weak=False), _tags(request, "if-none-match", weak=True)
    )


def documented(*headers: str) -> dict[str, Any]:
    """Return the OpenAPI parameters of a route's conditional headers."""
    schema = {"type": "string"}
    return {
        "parameters": [
            {"name": name, "in": "header", "schema": schema, "description": _HELP[name]}
            for name in headers
        ]
    }


def quoted(tag: str) -> str:
    """Return a strong entity tag in quotes."""
    return f'"{tag}"'


def _tags(request: Request, header: str, weak: bool) -> frozenset[str] | None:
    """Return the tags of a header; a weak one matches only where ``weak`` says so."""
    values = request.headers.getlist(header)
    if not values:
        return None
    text = ",".join(values).strip()
    if text == ANY:
        return frozenset({ANY})
    if not _TAGS.fullmatch(text):
        raise BadRequestError(
            f'{echo(text)} is not a list of entity tags; allowed: *, or "<sha256>"', header
        )
    return frozenset(tag for marked, tag in _TAG.findall(text) if weak or not marked)


def _among(entry: Entry | None, tags: frozenset[str]) -> bool:
    if entry is None:
        return False
    return ANY in tags or (isinstance(entry, StoredName) and entry.sha256 in tags)
