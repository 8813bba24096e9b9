"""Names of vectors: the client's, and the store's, which also hold the tenant's name."""

from __future__ import annotations

import re

from service.errors import BadRequestError, NotFoundError, echo

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MARK = "~"
"""Between tenant and name in the store; no name that a client may use has it."""


def is_name(name: str) -> bool:
    """Say whether a vector may have that name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, param: str = "name") -> str:
    """Return ``name``; BadRequestError if no vector may have it."""
    if not is_name(name):
        raise BadRequestError(
            f"{echo(name)} is not a vector name; allowed: 1 to 64 of a-z, 0-9, '.', '_', '-', "
            "starting with a letter or digit",
            param,
        )
    return name


def unknown(name: str) -> NotFoundError:
    """Return the error for a vector that does not exist or belongs to another tenant."""
    return NotFoundError(
        f"there is no vector {echo(public_name(name))}", "vector", "vector_not_found"
    )


def stored_name(name: str, tenant: str | None) -> str:
    """Return the store's name of a tenant's vector; a shared vector keeps its name."""
    return name if tenant is None else f"{tenant}{_MARK}{name}"


def public_name(stored: str) -> str:
    """Return the client's name of a stored vector."""
    return stored.rpartition(_MARK)[2]


def tenant_of(stored: str) -> str | None:
    """Return the tenant of a stored vector; None for a shared one."""
    tenant, mark, _ = stored.rpartition(_MARK)
    return tenant if mark else None


def is_stored_name(stored: str) -> bool:
    """Say whether a name is valid in the store."""
    return all(map(is_name, stored.split(_MARK, 1)))


def check_stored_name(stored: str) -> str:
    """Return ``stored``; BadRequestError if the name is not valid in the store."""
    for part in stored.split(_MARK, 1):
        check_name(part)
    return stored
