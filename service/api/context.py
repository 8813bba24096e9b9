"""The objects that routes share, kept on ``app.state.sensefield``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastapi import Request

from logit_processors.vocabulary import Vocabulary
from service.access.visit import Visit
from service.api.prompts import PromptEncoder
from service.api.serving import ChatServing, TextServing
from service.distributions.token_texts import TokenTexts
from service.engine.engine import SensefieldEngine
from service.engine.grammar_gate import GrammarGate
from service.engine.prompt_states import PromptStates
from service.engine.readiness import Readiness
from service.planning.plan import Plan
from service.planning.planner import Planner
from service.vectors.content import ModelFacts
from service.vectors.registry import VectorRegistry
from service.vectors.resident import Engine


@dataclass
class Context:
    """The shared objects of one server."""

    planner: Planner
    vectors: VectorRegistry
    engine: Engine
    """Calls the workers, one call at a time."""
    generating: SensefieldEngine
    """The engine client that generates."""
    model: ModelFacts
    vocabulary: Vocabulary
    texts: TokenTexts
    prompts: PromptEncoder
    states: PromptStates
    chat: ChatServing | None
    completions: TextServing | None
    readiness: Readiness
    grammars: GrammarGate

    async def prepare(self, plan: Plan) -> None:
        """Compile the text patterns and load the vectors of a plan's request."""
        await self.planner.compile(plan)
        await self.vectors.bring_residual({entry.vector for entry in plan.residual})


def context_of(request: Request) -> Context:
    """Return the server's context, limited to the vectors of the request's tenant."""
    context: Context = request.app.state.sensefield
    tenant = Visit.of(request.scope).tenant
    if tenant is None:
        return context
    vectors = context.vectors.of(tenant)
    return replace(context, vectors=vectors, planner=replace(context.planner, vectors=vectors))
