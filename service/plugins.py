"""The entry points of this distribution, which vLLM loads in each of its processes.

Both do nothing unless ``VLLM_PLUGINS`` names ``sensefield``, which ``sensefield serve``
sees to: a plain vLLM in the same environment stays plain.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.app import SensefieldEndpoints

NAME = "sensefield"


def enabled() -> bool:
    """Say whether this process belongs to a server that ``sensefield serve`` started."""
    return NAME in os.environ.get("VLLM_PLUGINS", "").split(",")


def register() -> None:
    """``vllm.general_plugins``: install the seams in each process of the engine and of the API.

    The process also ends with its parent.
    """
    if not enabled():
        return
    from service.engine import family, seams
    from service.engine.seam import Where

    if seams.is_installed(Where.EVERY):
        return
    seams.install(Where.EVERY)
    family.end_with_parent()


def endpoint_plugin() -> SensefieldEndpoints:
    """``vllm.endpoint_plugins``: our routes, over vLLM's where they share a path."""
    from service.app import SensefieldEndpoints

    return SensefieldEndpoints()
