"""Residual steering on small random models of real architectures, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from logit_processors.program import Program
from tests.entries import bias_token, capture_of, program_of, span, steer_logits, steer_residual
from tests.integration.families import (
    FAMILIES,
    LAYERS,
    PROMPT,
    SIZE,
    UNSUPPORTED,
    final_norm,
    forward,
    make_model,
)
from tests.integration.offline import off_centre, run_offline, run_offline_jobs
from tests.integration.servers import V2_ENVIRONMENT

DAILY = ("qwen3 with experts", "gemma2", "gpt2", "pythia", "whole stream and a remainder")
"""The families that differ most: experts, norms after the layers, no rotary positions, modules of
transformers, a parallel block."""
STEER = (
    steer_residual("a", 6.0, layers=(1,)),
    steer_residual("a", -4.0, layers=(0, 3), when=span(-3, 2)),
)
ABSENT = steer_residual("absent", 1.0)
CAPTURE = capture_of("tag", 3)
RESIDUAL = Program.of({"steer_residual": STEER}).to_wire()
MISSING = Program.of({"steer_residual": [ABSENT]}).to_wire()
TOKEN = 77
STRENGTH = 2.0
READ = {
    "program": program_of(steer=(steer_logits("r", STRENGTH),)).to_wire(),
    "rows": {"base": True, "controlled": True},
}
CALLS: list[list[Any]] = [
    ["rpc", "sensefield_describe_residual"],
    ["put", "a", list(range(LAYERS))],
    [
        "generate",
        [
            {"prompt": PROMPT, "tokens": 4},
            {
                "prompt": PROMPT,
                "tokens": 4,
                "wire": {"program": RESIDUAL},
            },
            {"prompt": PROMPT, "tokens": 1, "wire": {"capture": CAPTURE.model_dump()}},
        ],
    ],
    ["rpc", "sensefield_fetch_capture", "tag"],
    [
        "generate",
        [
            {"prompt": PROMPT, "tokens": 4},
            {
                "prompt": PROMPT,
                "tokens": 4,
                "wire": {"program": MISSING},
            },
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
READING = CALLS[-4:]
"""The readings that depend on the model's final norm."""
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
                "wire": {"program": program_of(token_bias=(bias_token(TOKEN, 100.0),)).to_wire()},
            },
        ],
    ],
    ["rpc", "sensefield_describe_residual"],
    ["direct", "d", TOKEN],
    ["rpc", "sensefield_nearest", "d", 512, 3],
]


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
    reasons, nearest, (answer,), lens = answers[-len(READING) :]
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


@pytest.mark.usefixtures("only_full")
@pytest.mark.parametrize("family", ["gpt2", "pythia"])
def test_the_second_runner_reads_vectors_the_same(family: str, tmp_path: Path) -> None:
    model = make_model(family, tmp_path)
    answers = run_offline(READING, {"model": str(tmp_path), **ENGINE}, V2_ENVIRONMENT)
    check_reading(model, answers)


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
