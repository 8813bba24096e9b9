"""Sensefield's part of the FastAPI application that vLLM builds and serves."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Any

from fastapi import FastAPI
from vllm.renderers.chat_utils import load_chat_template

from logit_processors.vocabulary import Vocabulary
from logit_processors.wire import PROCESSOR
from service import startup
from service.access import connection, grammars, metrics_port
from service.access.visit import CURRENT_TENANT
from service.api import (
    generate,
    health,
    lens,
    models,
    quick_json,
    score,
    tokens,
    vector_making,
    vectors,
)
from service.api.context import Context
from service.api.documentation import document
from service.api.paths import Heads, answer_unknown_paths
from service.api.prompts import PromptEncoder
from service.api.route import check_bodies
from service.api.serving import ChatServing, TextServing
from service.api.stock_serving import serve_mended
from service.distributions.token_texts import TokenTexts
from service.engine import held
from service.engine.cache_salt import SteeringSalt, secret_of
from service.engine.engine import SensefieldEngine
from service.engine.exhaustion import MaskBlame
from service.engine.first_step import run_first_step
from service.engine.grammar_gate import GrammarGate, TriedGrammars
from service.engine.grammar_trial import Limits
from service.engine.prompt_states import PromptStates
from service.engine.readiness import Readiness
from service.engine.registered import assert_same_controls
from service.engine.tenants import TenantSalt
from service.errors import StartupError
from service.life import Life
from service.planning.budget import Budget
from service.planning.patterns import Patterns
from service.planning.planner import Planner
from service.playground import page
from service.settings import settings
from service.vectors.content import ModelFacts
from service.vectors.registry import VectorRegistry
from service.vectors.residual_bank import ResidualSupport
from service.vectors.store import VectorStore
from service.vectors.turns import SerializedRpc


class SensefieldEndpoints:
    """The endpoint plugin: adds our routes, and their context once the engine runs."""

    name = "sensefield"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes; vLLM lets them take the place of its own on the same path."""
        app.include_router(generate.router)
        app.include_router(vectors.router)
        app.include_router(vector_making.router)
        app.include_router(tokens.router)
        app.include_router(score.router)
        app.include_router(lens.router)
        app.include_router(health.router)
        app.include_router(models.router)
        page.mount(app)
        check_bodies(app)
        connection.install()
        quick_json.install()
        document(app)
        answer_unknown_paths(app)
        app.add_middleware(health.Gate)
        app.add_middleware(Heads)
        if settings().metrics_port is not None:
            metrics_port.remove_from(app)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Build the context of a server whose engine runs.

        Raises:
            StartupError: the vector store cannot be written, there is no tokenizer, or vLLM
                serves past our engine client.

        """
        if not isinstance(engine_client, SensefieldEngine):
            raise StartupError("vLLM's routes have its own engine client, which keeps no tenants")
        startup.passed("engine")
        model_config = engine_client.model_config
        tokenizer = engine_client.renderer.tokenizer
        if tokenizer is None:
            raise StartupError("Sensefield needs the tokenizer: leave out --skip-tokenizer-init")
        own = settings()
        vocabulary = Vocabulary.from_tokenizer(tokenizer, model_config.get_vocab_size())
        texts = TokenTexts(vocabulary)
        model = model_facts(model_config, args)
        store = VectorStore(own.vectors_dir, own.max_vectors, own.vectors_bytes)
        await run_first_step(engine_client)
        processes = max(1, args.api_server_count or 1)
        await assert_same_controls(engine_client)
        support = await ResidualSupport.of(engine_client, processes)
        registry = VectorRegistry(store, engine_client, model, support)
        await registry.load()
        budget = Budget(own.distribution_request_bytes, own.distribution_total_bytes)
        secret = await secret_of(engine_client)
        limits = Limits(own.grammar_cpu_seconds)
        gate = GrammarGate(
            engine_client.vllm_config, limits, CURRENT_TENANT.get, grammars.FIELD.get
        )
        engine_client.steps = (
            SteeringSalt(registry.layers_of, secret),
            TriedGrammars(gate),
            MaskBlame(engine_client.vllm_config.kv_transfer_config is None),
            TenantSalt(CURRENT_TENANT.get, secret),
        )
        prompts = PromptEncoder(
            tokenizer, load_chat_template(args.chat_template), model_config.max_model_len - 1
        )
        serve_mended(state, len(vocabulary))
        readiness = Readiness(engine_client, own.stall_timeout_seconds)
        is_pooled = engine_client.vllm_config.use_v2_model_runner
        patterns = Patterns(vocabulary, processes if is_pooled else None)
        state.sensefield = Context(
            planner=Planner(
                own,
                registry,
                len(vocabulary),
                vocabulary.width,
                budget,
                patterns,
                prompts.continuation,
                tuple(str(each) for each in args.logits_processors or () if each != PROCESSOR),
            ),
            vectors=registry,
            engine=SerializedRpc(engine_client),
            generating=engine_client,
            model=model,
            vocabulary=vocabulary,
            texts=texts,
            prompts=prompts,
            # Captures have cache salts of their own, shared by the parts of a steered text.
            states=PromptStates(
                engine_client.without(SteeringSalt),
                engine_client.vllm_config.cache_config.enable_prefix_caching,
            ),
            chat=_adopt(ChatServing, state.openai_serving_chat, texts),
            completions=_adopt(TextServing, state.openai_serving_completion, texts),
            readiness=readiness,
            grammars=gate,
        )
        state.sensefield_held = asyncio.create_task(held.watch(engine_client))
        life = Life(engine_client, state, readiness, args.shutdown_timeout)
        state.sensefield_life = asyncio.create_task(life.run())
        is_first = engine_client.vllm_config.parallel_config._api_process_rank <= 0
        if own.metrics_port is not None and is_first:
            state.sensefield_metrics = metrics_port.serve(own.metrics_port, args)
        startup.passed("service")
        _greet(engine_client.vllm_config, args)


def _adopt(kind: Any, stock: object | None, texts: TokenTexts) -> Any:
    return None if stock is None else kind.with_texts(stock, texts)


def model_facts(model_config: Any, args: Namespace) -> ModelFacts:
    """Return the facts about the served model that vectors need."""
    import torch

    return ModelFacts(
        name=_served_name(args),
        architecture=str(model_config.hf_text_config.model_type),
        hidden_size=model_config.get_hidden_size(),
        layers=model_config.get_total_num_hidden_layers(),
        dtype=str(model_config.dtype).removeprefix("torch."),
        largest=torch.finfo(model_config.dtype).max,
    )


def _served_name(args: Namespace) -> str:
    return str(args.served_model_name[0] if args.served_model_name else args.model)


def _greet(vllm_config: Any, args: Namespace) -> None:
    """Print the server's address, the model, and an example request."""
    runner = "V2" if vllm_config.use_v2_model_runner else "V1"
    model = _served_name(args)
    address = f"http://{args.host or 'localhost'}:{args.port}"
    print(
        f"\nSensefield serves {model} on {address} (vLLM's {runner} runner). Try:\n\n"
        f"  curl {address}/v1/chat/completions -H 'content-type: application/json' -d '"
        f'{{"model": "{model}", "max_tokens": 20, '
        '"messages": [{"role": "user", "content": "Describe the sea."}], '
        '"logit_control": {"bias": [{"text": " ocean", "add": 4}]}}'
        "'\n\n"
        f"or open {address}/playground in a browser.\n",
        flush=True,
    )
    if times := startup.summary():
        print(f"sensefield: {times}", flush=True)
