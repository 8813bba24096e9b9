"""What vectors are called: by clients, and in the store, where a tenant's carry its name too."""

from __future__ import annotations

import re

from service.errors import BadRequestError, NotFoundError, echo

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MARK = "~"
"""Between tenant and name in the store; no name that a client may use has it."""


def is_name(name: str) -> bool:
    """Say whether a vector can be called that."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, param: str = "name") -> str:
    """Return ``name``; BadRequestError if no vector can be called that."""
    if not is_name(name):
        raise BadRequestError(
            f"{echo(name)} is not a vector name; allowed: 1 to 64 of a-z, 0-9, '.', '_', '-', "
            "starting with a letter or digit",
            param,
        )
    return name


def unknown(name: str) -> NotFoundError:
    """Return the error that there is no such vector, whoever asks and whosoever it may be."""
    return NotFoundError(f"there is no vector {echo(plain(name))}", "vector", "vector_not_found")


def owned(name: str, tenant: str | None) -> str:
    """Return what the store calls a tenant's vector; of no tenant's, its name alone."""
    return name if tenant is None else f"{tenant}{_MARK}{name}"


def plain(stored: str) -> str:
    """Return what a client calls a vector of the store."""
    return stored.rpartition(_MARK)[2]


def tenant_of(stored: str) -> str | None:
    """Return whose a vector of the store is; None of those that all share."""
    tenant, mark, _ = stored.rpartition(_MARK)
    return tenant if mark else None


def is_stored_name(stored: str) -> bool:
    """Say whether the store can hold a vector under that."""
    return all(map(is_name, stored.split(_MARK, 1)))


def check_stored_name(stored: str) -> str:
    """Return ``stored``; BadRequestError if the store can hold no vector under that."""
    for part in stored.split(_MARK, 1):
        check_name(part)
    return stored
