"""API keys: shown once, stored as SHA-256, compared in constant time.

A line of the keys file is ``NAME ROLE[,ROLE...] sha256:HEX``. The name is the tenant whose
vectors the key works on, so two lines of one name are how a key is replaced.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from service.access.roles import ADMIN, ROLES
from service.errors import StartupError, echo

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SECRET_BYTES = 32
"""So many random bytes cannot be guessed, and need no slow hash."""


@dataclass(frozen=True)
class Key:
    """One key, without its secret."""

    name: str
    roles: frozenset[str]
    digest: bytes

    @classmethod
    def of(cls, name: str, roles: Collection[str], secret: str) -> Self:
        """Return the key of a secret; ValueError names the bad part."""
        return cls.parse(f"{name} {','.join(roles)} sha256:{_digest(secret).hex()}")

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line of the keys file; ValueError names the bad part."""
        fields = line.split()
        if len(fields) != 3:
            raise ValueError("a line is: NAME ROLE[,ROLE...] sha256:HEX")
        name, listed, digest = fields
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{echo(name)} is no name of a key; allowed: 1 to 32 of a-z, 0-9, '.', '_', '-', "
                "starting with a letter or digit"
            )
        roles = listed.split(",")
        if unknown := [role for role in roles if role not in ROLES]:
            raise ValueError(f"{echo(unknown[0])} is no role; allowed: {', '.join(ROLES)}")
        if not (found := _DIGEST.fullmatch(digest)):
            raise ValueError("the last field must be sha256: and 64 hexadecimal digits")
        return cls(name, frozenset(roles), bytes.fromhex(found[1]))

    @property
    def tenant(self) -> str | None:
        """Return the tenant whose vectors the key works on; None for the shared vectors."""
        return None if ADMIN in self.roles else self.name

    def to_line(self) -> str:
        """Return the key's line of the keys file."""
        roles = ",".join(role for role in ROLES if role in self.roles)
        return f"{self.name} {roles} sha256:{self.digest.hex()}"


class KeyRing:
    """All keys of a server; with none, the server is open."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)

    @classmethod
    def read(cls, lines: str, file: str | None) -> Self:
        """Read the keys of the settings ``api_keys`` and ``api_keys_file``.

        Raises:
            StartupError: the file cannot be read or holds no key, or a line is malformed.

        """
        keys = _keys_of(lines.replace(";", "\n"), "SENSEFIELD_API_KEYS")
        if file is not None:
            try:
                text = Path(file).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise StartupError(f"api_keys_file {file} cannot be read: {error}") from None
            if not (found := _keys_of(text, file)):
                raise StartupError(f"api_keys_file {file} holds no key")
            keys += found
        return cls(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, secret: str) -> Key | None:
        """Return the key of a secret; every key is compared, for constant time."""
        digest = _digest(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def new_secret() -> str:
    """Return the secret of a new key."""
    return f"sf-{secrets.token_urlsafe(_SECRET_BYTES)}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _keys_of(text: str, source: str) -> list[Key]:
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            keys.append(Key.parse(line))
        except ValueError as error:
            raise StartupError(f"{source}, line {number}: {error}") from None
    return keys
