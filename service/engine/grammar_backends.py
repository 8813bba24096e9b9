"""A grammar compiler per request; vLLM's engine would use one compiler for all requests.

vLLM's API process picks a compiler for each grammar (``auto``), but its engine keeps the compiler
of its first grammar forever. Here each grammar is compiled by a compiler that enforces it, in any
order of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.request import get_structured_output_key

from service.engine.unenforced import unenforced

_MANAGERS = "_sensefield_managers"


def enforcing(grammar: StructuredOutputsParams) -> str:
    """Return the name of the compiler for a grammar that vLLM has validated.

    It is vLLM's choice, unless vLLM was free to choose and its compiler would ignore a part of the
    grammar. Then it is guidance, which enforces all of a schema or refuses it.
    """
    picked = str(grammar._backend)
    if not grammar._backend_was_auto:
        return picked
    kind, text = get_structured_output_key(grammar)
    if picked == "outlines" and kind == StructuredOutputOptions.JSON:
        return "guidance"
    if picked == "xgrammar" and unenforced(kind, text) is not None:
        return "guidance"
    return picked


def compiled_by_own(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``StructuredOutputManager.grammar_init``, each grammar with its own compiler."""

    def grammar_init(self: StructuredOutputManager, request: Request) -> None:
        if request.structured_output_request is None:
            return
        grammar = request.structured_output_request.params
        grammar._backend = enforcing(grammar)
        managers = vars(self).setdefault(_MANAGERS, {})
        manager = managers.get(grammar._backend)
        if manager is None:
            # A copy without the compiler: vLLM creates one if a manager has none.
            manager = copy(self)
            manager.backend = None
        stock(manager, request)
        managers[grammar._backend] = manager
        # The first compiler allocates the masks for all: they are equally wide.
        self.backend = self.backend or manager.backend

    return grammar_init
