"""Residual steering on small random models of real architectures, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn import ModuleList

from logit_processors.controls import Steer, TokenBias
from logit_processors.program import Program
from logit_processors.residual import Capture, ResidualSteer, Span
from tests.integration.offline import off_centre, run_offline, run_offline_jobs, vector

LAYERS, SIZE = 4, 64
COMMON = {
    "vocab_size": 512,
    "hidden_size": SIZE,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS = {"head_dim": 32}
WINDOWED = {**HEADS, "sliding_window": 64, "query_pre_attn_scalar": 32}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON | HEADS),
    "mistral": ("MistralConfig", COMMON | HEADS),
    "qwen2": ("Qwen2Config", COMMON),
    "qwen3": ("Qwen3Config", COMMON | HEADS),
    "qwen3 with experts": ("Qwen3MoeConfig", COMMON | HEADS | EXPERTS),
    "gemma2": ("Gemma2Config", COMMON | WINDOWED),
    "gemma3": ("Gemma3TextConfig", COMMON | WINDOWED),
    "gpt2": ("GPT2Config", {"vocab_size": 512, "n_embd": SIZE, "n_layer": LAYERS, "n_head": 2}),
    "pythia": ("GPTNeoXConfig", COMMON),
    "whole stream and a remainder": ("CohereConfig", COMMON),
}
DAILY = ("qwen3 with experts", "gemma2", "gpt2", "pythia", "whole stream and a remainder")
"""What differs most: experts, norms after the layers, no rotary positions, modules of
transformers, a parallel block."""
PROMPT = list(range(5, 21))
STEER = (
    ResidualSteer("a", 6.0, layers=(1,)),
    ResidualSteer("a", -4.0, layers=(0, 3), when=Span(-3, 2)),
)
ABSENT = ResidualSteer("absent", 1.0)
CAPTURE = Capture("tag", 3)
TOKEN = 77
STRENGTH = 2.0
READ = {
    "program": Program(steer=(Steer("r", STRENGTH),)).to_wire(),
    "rows": {"base": True, "controlled": True},
}
CALLS: list[list[Any]] = [
    ["rpc", "sensefield_describe_residual"],
    ["put", "a", list(range(LAYERS))],
    [
        "generate",
        [
            {"prompt": PROMPT, "tokens": 4},
            {"prompt": PROMPT, "tokens": 4, "wire": {"residual": [e.to_wire() for e in STEER]}},
            {"prompt": PROMPT, "tokens": 1, "wire": {"capture": CAPTURE.to_wire()}},
        ],
    ],
    ["rpc", "sensefield_fetch_capture", "tag"],
    [
        "generate",
        [
            {"prompt": PROMPT, "tokens": 4},
            {"prompt": PROMPT, "tokens": 4, "wire": {"residual": [ABSENT.to_wire()]}},
            {"prompt": PROMPT, "tokens": 1},
        ],
    ],
    ["direct", "d", TOKEN],
    ["rpc", "sensefield_nearest", "d", 512, 3],
    ["rpc", "sensefield_nearest", "d", TOKEN, 3],
    ["read", "r"],
    ["rpc", "sensefield_nearest", "r", 512, 5],
    ["generate", [{"prompt": PROMPT, "tokens": 4, "wire": READ}]],
    ["lens", "s", 3],
]
ENGINE = {"max_model_len": 64, "skip_tokenizer_init": True}
WITHOUT, COMPILED = "gemma3n", "compiled"
LOGITS_ONLY: list[list[Any]] = [
    [
        "generate",
        [
            {"prompt": PROMPT, "tokens": 4},
            {
                "prompt": PROMPT,
                "tokens": 4,
                "wire": {"program": Program(token_bias=(TokenBias(TOKEN, 100.0),)).to_wire()},
            },
        ],
    ],
    ["rpc", "sensefield_describe_residual"],
    ["direct", "d", TOKEN],
    ["rpc", "sensefield_nearest", "d", 512, 3],
]


def make_model(family: str, folder: Path) -> Any:
    """Save a random model of a family and return it."""
    name, arguments = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**arguments)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
        else:  # a bias, or a norm's gain
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder)
    return model


def check(model: Any, answers: list[Any]) -> None:
    """Compare an engine's answers to :data:`CALLS` with the model in transformers."""
    described, _, (plain, steered, _), fetched, (again, broken, _), *_ = answers
    assert {worker["unsupported"] for worker in described} == {None}
    for answer, steer in ((plain, ()), (steered, STEER)):
        logprobs, _ = forward(model, [*PROMPT, *answer["tokens"]], steer)
        chosen = logprobs[len(PROMPT) - 1 : -1]
        tokens = torch.tensor(answer["tokens"]).unsqueeze(1)
        values = chosen.gather(1, tokens).squeeze(1).numpy()
        np.testing.assert_allclose(answer["logprobs"], values, atol=5e-4)
        assert (chosen.max(-1).values.numpy() - values < 5e-4).all()
        assert all(answer["alive"])
    assert np.abs(np.array(plain["logprobs"]) - steered["logprobs"]).max() > 0.005
    # What steers or captures beside a request changes not a bit of it.
    assert again == plain
    assert broken["alive"] == [False] * 4, "its vector is not here"
    _, streams = forward(model, PROMPT, ())
    wanted = streams[:, -3:].mean(axis=1)
    for worker in fetched:
        values = np.array(worker["data"]).reshape(wanted.shape)
        assert np.abs(values - wanted).max() < 1e-3 * np.abs(wanted).max()


def check_logit_space(answers: list[Any]) -> None:
    """A token's direction in the unembedding must raise that token above all others."""
    at = next(at for at, call in enumerate(CALLS) if call[0] == "direct")
    reasons, nearest, before_it = answers[at : at + 3]
    assert set(reasons) == {None}
    found = [worker["raised_ids"][0] for worker in nearest if worker is not None]
    assert set(found) == {TOKEN}
    # Of a model with more logits than tokens those beyond do not show.
    ids = [worker["raised_ids"] + worker["lowered_ids"] for worker in before_it if worker]
    assert ids
    assert max(map(max, ids)) < TOKEN


def check_reading(model: Any, answers: list[Any]) -> None:
    """Compare how vectors of the residual stream are read with the model's own final norm."""
    reasons, nearest, (answer,), lens = answers[-4:]
    assert set(reasons) == {None}
    with torch.no_grad():
        states = final_norm(model)(torch.from_numpy(off_centre("s", 3, SIZE)))
        logits = model.get_output_embeddings()(states) * getattr(model.config, "logit_scale", 1)
        cap = getattr(model.config, "final_logit_softcapping", None)
        logits = logits if cap is None else cap * (logits / cap).tanh()
        # A norm is linear but for the number it divides by, which standardising takes out.
        ends = torch.from_numpy(np.stack([off_centre("r", 1, SIZE)[0], np.zeros(SIZE, np.float32)]))
        step, origin = final_norm(model)(ends).double()
    raw = (model.get_output_embeddings().weight.detach().double() @ (step - origin)).numpy()
    scores = (raw - raw.mean()) / raw.std()
    order = np.argsort(-scores)
    told = next(worker for worker in nearest if worker is not None)
    for side, ids in (("raised", order[:5]), ("lowered", order[:-6:-1])):
        assert told[f"{side}_ids"] == ids.tolist()
        np.testing.assert_allclose(told[side], scores[ids], atol=1e-4)
    base, _ = forward(model, [*PROMPT, *answer["tokens"]], ())
    wanted = (base + STRENGTH * torch.from_numpy(scores)).log_softmax(-1)[len(PROMPT) - 1 : -1]
    tokens = torch.tensor(answer["tokens"]).unsqueeze(1)
    values = wanted.gather(1, tokens).squeeze(1).numpy()
    np.testing.assert_allclose(answer["controlled"], values, atol=1e-3)
    assert (wanted.max(-1).values.numpy() - values < 1e-3).all()
    read = next(worker for worker in lens if worker is not None)
    likeliest = logits.log_softmax(-1).max(-1).values.numpy()
    np.testing.assert_allclose(read["logprobs"], likeliest, atol=1e-3)


def final_norm(model: Any) -> Any:
    """Return the norm before the unembedding, which is the last one that a model makes."""
    return [
        module
        for name, module in model.named_modules()
        if name.split(".")[-1] in ("norm", "ln_f", "final_layer_norm")
    ][-1]


def forward(
    model: Any, tokens: list[int], steer: tuple[ResidualSteer, ...]
) -> tuple[torch.Tensor, Any]:
    """Return log-probabilities ``[tokens, vocab]`` and streams ``[layers, tokens, hidden]``."""
    positions = torch.arange(len(tokens)) + 1 - len(PROMPT)
    streams = []

    def hook(number: int) -> Any:
        def add(_module: Any, _arguments: Any, output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            for entry in steer:
                start, stop = entry.when.bounds
                if entry.layers is None or number in entry.layers:
                    inside = (positions >= start) & (positions < stop)
                    value = torch.from_numpy(vector(entry.vector, [number], SIZE)[0])
                    stream = stream + inside[None, :, None] * entry.strength * value
            streams.append(stream[0].numpy())
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return add

    (layers,) = (m for m in model.modules() if isinstance(m, ModuleList) and len(m) == LAYERS)
    handles = [layer.register_forward_hook(hook(n)) for n, layer in enumerate(layers)]
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return logits.log_softmax(-1), np.stack(streams)


@pytest.fixture(scope="module")
def families(
    full: bool, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Any, list[Any]]]:
    """Each family's model, and an engine's answers to :data:`CALLS`."""
    folder = tmp_path_factory.mktemp("families")
    tried = [family for family in FAMILIES if full or family in DAILY]
    models = {family: make_model(family, folder / family) for family in tried}
    jobs = [(CALLS, {"model": str(folder / family), **ENGINE}) for family in tried]
    torch.manual_seed(0)
    models[WITHOUT] = transformers.AutoModelForCausalLM.from_config(
        transformers.Gemma3nTextConfig(**UNSUPPORTED)
    )
    models[WITHOUT].save_pretrained(folder / WITHOUT)
    jobs.append((LOGITS_ONLY, {"model": str(folder / WITHOUT), **ENGINE}))
    models[COMPILED] = make_model("llama", folder / COMPILED)
    compiled = {"model": str(folder / COMPILED), **ENGINE, "enforce_eager": False}
    jobs.append((CALLS, compiled))
    answers = run_offline_jobs(jobs)
    return {family: (models[family], each) for family, each in zip(models, answers, strict=True)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_steered_as_in_transformers(
    family: str, families: dict[str, tuple[Any, list[Any]]]
) -> None:
    if family not in families:
        pytest.skip("only with --full: one of each way to hand on the stream is tried daily")
    check(*families[family])
    check_logit_space(families[family][1])
    check_reading(*families[family])


def test_a_compiled_model_steers_the_same(
    families: dict[str, tuple[Any, list[Any]]],
) -> None:
    check(*families[COMPILED])


@pytest.mark.usefixtures("only_full")
def test_two_ranks_steer_the_same(tmp_path: Path) -> None:
    model = make_model("llama", tmp_path)
    answers = run_offline(CALLS, {"model": str(tmp_path), **ENGINE, "tensor_parallel_size": 2})
    check(model, answers)
    check_logit_space(answers)
    check_reading(model, answers)


@pytest.mark.usefixtures("only_full")
def test_a_compiled_model_over_two_stages_steers_the_same(tmp_path: Path) -> None:
    model = make_model("llama", tmp_path)
    staged = {"pipeline_parallel_size": 2, "enforce_eager": False}
    answers = run_offline(CALLS, {"model": str(tmp_path), **ENGINE, **staged})
    first, second = answers[3]
    assert first["layers"] + second["layers"] == list(range(LAYERS))
    answers[3] = [{"data": first["data"] + second["data"]}]
    check(model, answers)
    check_logit_space(answers)
    check_reading(model, answers)


UNSUPPORTED = {
    **{"vocab_size": 512, "vocab_size_per_layer_input": 512, "hidden_size": SIZE},
    **{"hidden_size_per_layer_input": 16, "intermediate_size": [128, 128]},
    **{"activation_sparsity_pattern": [0.0, 0.0], "num_hidden_layers": 2},
    **{"layer_types": ["sliding_attention", "full_attention"], "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "num_kv_shared_layers": 0, "head_dim": 32, "laurel_rank": 8},
    **{"sliding_window": 64, "max_position_embeddings": 128},
}
"""Gemma 3n, whose decoder layers hand on four streams, not one."""


def test_a_model_without_one_stream_says_so_and_is_controlled_in_logit_space(
    families: dict[str, tuple[Any, list[Any]]],
) -> None:
    (plain, biased), (described,), reasons, nearest = families[WITHOUT][1]
    assert "one residual stream" in described["unsupported"], "the first step shows it"
    assert plain["tokens"] != [TOKEN] * 4
    assert biased["tokens"] == [TOKEN] * 4
    assert all(biased["alive"])
    assert reasons[0] is None
    assert nearest[0]["raised_ids"][0] == TOKEN
