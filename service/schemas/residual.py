"""The steering of the residual stream in ``logit_control``, translated and checked."""

from __future__ import annotations

from collections.abc import Callable, Collection

from logit_processors.checks import ControlError
from logit_processors.residual import (
    EVERYWHERE,
    MAX_RESIDUAL_ENTRIES,
    ResidualSteer,
)
from service.errors import BadRequestError, RequestError, echo
from service.schemas.control import LogitControl, SteerEntry


def build_residual(
    control: LogitControl | None,
    content_of: Callable[[str], str],
    layers_of: Callable[[str], Collection[int]],
    unsupported: str | None = None,
) -> tuple[ResidualSteer, ...]:
    """Translate a request's entries ``"at": "residual"``.

    Args:
        control: the ``logit_control`` field.
        content_of: SHA-256 of a vector by name; raises what the caller wants for unknown names.
        layers_of: layers that a content, by its SHA-256, carries; none if it is a direction of
            the unembedding.
        unsupported: why the model cannot be steered there, if it cannot.

    Raises:
        ControlError: a value that cannot be; ``param`` is its JSON path.
        RequestError: what ``content_of`` raises, with that path.

    """
    entries = [] if control is None else enumerate(control.steer)
    wanted = [(at, entry) for at, entry in entries if entry.at == "residual"]
    if wanted and unsupported is not None:
        raise ControlError(
            f"logit_control.steer[{wanted[0][0]}].at",
            f"'residual' cannot be on this model: {unsupported}; allowed: 'logits'",
        )
    if len(wanted) > MAX_RESIDUAL_ENTRIES:
        raise ControlError(
            "logit_control.steer",
            f"{len(wanted)} entries at 'residual' are too many; allowed: {MAX_RESIDUAL_ENTRIES}",
        )
    built = []
    for at, entry in wanted:
        path = f"logit_control.steer[{at}]"
        try:
            built.append(_to_domain(entry, content_of, layers_of))
        except ControlError as error:
            raise error.under(path) from None
        except RequestError as error:
            error.param = f"{path}.vector"
            raise
    return tuple(built)


def _to_domain(
    entry: SteerEntry,
    content_of: Callable[[str], str],
    layers_of: Callable[[str], Collection[int]],
) -> ResidualSteer:
    content = content_of(entry.vector)
    carried = layers_of(content)
    if not carried:
        raise BadRequestError(
            f"the vector {echo(entry.vector)} is a direction of the unembedding: it steers "
            "'at': 'logits' only"
        )
    missing = [layer for layer in entry.layers or [] if layer not in carried]
    if missing:
        raise ControlError(
            "layers",
            f"{echo(missing[:10])} is not in the vector; allowed: {echo(sorted(carried))}",
        )
    return ResidualSteer(
        vector=content,
        strength=entry.strength,
        layers=None if entry.layers is None else tuple(entry.layers),
        when=EVERYWHERE if entry.when is None else entry.when.to_span(),
    )
