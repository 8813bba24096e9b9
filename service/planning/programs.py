"""A request's ``logit_control`` and ``logit_bias`` as the program that workers run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from logit_processors.checks import ControlError
from logit_processors.control import Entry, Server
from logit_processors.controls.bias import MAX_ADD, BiasEntry, TokenBias
from logit_processors.program import NO_PROGRAM, Program
from service.errors import RequestError, echo
from service.schemas.control import LogitControl


def build_program(
    control: LogitControl | None, logit_bias: Mapping[str, float] | None, server: Server
) -> Program:
    """Translate a request's control into a program.

    Args:
        control: the ``logit_control`` field.
        logit_bias: OpenAI's own field; becomes part of the program.
        server: facts that the entries are checked against.

    Raises:
        ControlError: a value is not allowed; ``param`` is its JSON path.
        RequestError: a vector does not exist; ``param`` is its JSON path.

    """
    entries: dict[str, list[Any]] = {}
    kinds = {}
    for kind, entry, path in () if control is None else control.entries():
        kinds[kind.name] = kind
        try:
            entries.setdefault(kind.name, []).append(kind.resolve(entry, server))
        except ControlError as error:
            raise error.under(path) from None
        except RequestError as error:
            error.param = f"{path}.{error.param}" if error.param else path
            raise
    if logit_bias:
        entries.setdefault(TokenBias.name, []).extend(_from_logit_bias(logit_bias, server))
    if not entries:
        return NO_PROGRAM
    try:
        program = Program.of(entries)
        for kind in kinds.values():
            kind.admit(entries[kind.name], server)
    except ControlError as error:
        raise error.under("logit_control" if kinds else "logit_bias") from None
    return program


def _from_logit_bias(logit_bias: Mapping[str, float], server: Server) -> list[Entry]:
    entries: dict[int, Entry] = {}
    for key, add in logit_bias.items():
        path = f"logit_bias[{key[:20]!r}]"
        if not key.isascii() or not key.isdigit() or len(key) > 10:
            raise ControlError(path, f"not a token id; allowed: 0 to {server.vocab_size - 1}")
        token_id = int(key)
        server.check_token(token_id, path)
        if token_id in entries:
            raise ControlError(path, f"token {token_id} is named twice in two spellings")
        try:
            entries[token_id] = BiasEntry(token_id=token_id, add=add)
        except ValidationError:
            raise ControlError(
                path,
                f"{echo(add)} is out of range; allowed: finite, from -{MAX_ADD:g} to "
                f"{MAX_ADD:g} nats",
            ) from None
    return list(entries.values())
