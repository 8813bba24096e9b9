"""The lens against transformers: every layer, position and measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
import safetensors.numpy
import torch

from tests.integration.arrow_client import table as arrow
from tests.integration.client import Client, array

PROMPT = "The history of the city begins with a small group of people who"
LONG = " ".join(f"Item {number} of the list." for number in range(30))
LAYERS = 30
STEERED = 14


def read(client: Client, **fields: Any) -> dict[str, Any]:
    """Return a lens of the prompt, in base64."""
    body = {"prompt": PROMPT, "encoding": "base64", "k": 8, **fields}
    answer = client.http.post("/v1/lens", json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def expected(
    reference: Any, token_ids: list[int], vector: np.ndarray[Any, Any] | None = None
) -> torch.Tensor:
    """Return transformers' residual stream after each layer, ``[layers, tokens, hidden]``."""
    streams: list[torch.Tensor] = []

    def take(layer: int) -> Any:
        def hook(_module: Any, _arguments: Any, output: Any) -> Any:
            stream = output
            if vector is not None and layer == STEERED:
                stream = output + torch.from_numpy(vector)
            streams.append(stream)
            return stream

        return hook

    hooks = [
        module.register_forward_hook(take(layer))
        for layer, module in enumerate(reference.model.layers)
    ]
    try:
        with torch.no_grad():
            reference.model(torch.tensor([token_ids]))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(streams)


def check(reference: Any, lens: dict[str, Any], streams: torch.Tensor) -> None:
    """Compare a lens with what transformers reads in the streams, a layer at a time."""
    positions, text = lens["positions"], lens["token_ids"]
    following = [text[at + 1] if at + 1 < len(text) else None for at in positions]
    assert lens["next"]["token_ids"] == following

    def rows_of(layer: int) -> torch.Tensor:
        with torch.no_grad():
            stream = reference.model.norm(streams[layer, positions])
            return torch.log_softmax(reference.lm_head(stream).double(), dim=-1)

    final = rows_of(LAYERS - 1)
    for at, layer in enumerate(lens["layers"]):
        rows = rows_of(layer)
        top = array(lens["top"]["logprobs"])[at]
        named = torch.from_numpy(array(lens["top"]["token_ids"])[at].copy()).long()
        assert np.abs(top - rows.topk(top.shape[1], dim=-1).values.numpy()).max() <= 1e-3
        assert np.abs(rows.gather(1, named).numpy() - top).max() <= 1e-3
        entropy = -(rows.exp() * rows).sum(dim=-1).numpy()
        assert np.abs(array(lens["entropy"])[at] - entropy).max() <= 1e-3
        kl = (final.exp() * (final - rows)).sum(dim=-1).numpy()
        assert np.abs(array(lens["kl"])[at] - kl).max() <= 1e-3
        _check_following(lens, at, rows, following)


def _check_following(
    lens: dict[str, Any], layer: int, rows: torch.Tensor, following: list[int | None]
) -> None:
    logprobs, ranks = (array(lens["next"][name])[layer] for name in ("logprobs", "ranks"))
    for at, token in enumerate(following):
        if token is None:
            assert np.isnan(logprobs[at])
            assert ranks[at] == 0
            continue
        own = float(rows[at, token])
        assert abs(logprobs[at] - own) <= 1e-3
        # A rank may move by tokens that are as good as tied.
        low, high = (int((rows[at] > own + slack).sum()) + 1 for slack in (2e-3, -2e-3))
        assert low <= ranks[at] <= high


def test_every_layer_equals_transformers(v1: Client, reference: Any) -> None:
    lens = read(v1)
    assert lens["layers"] == list(range(LAYERS))
    assert lens["positions"] == list(range(lens["prompt_tokens"]))
    assert array(lens["top"]["token_ids"]).shape == (LAYERS, lens["prompt_tokens"], 8)
    check(reference, lens, expected(reference, lens["token_ids"]))


def test_the_final_layer_is_the_served_distribution(v1: Client) -> None:
    wanted = {"top_k": 8, "stages": ["base"]}
    served = v1.choice(PROMPT, max_tokens=1, distribution=wanted)["distribution"]["base"]
    lens = read(v1, layers=[LAYERS - 1], positions=[-1])
    assert np.abs(array(lens["top"]["logprobs"])[0, 0] - array(served["logprobs"])[0]).max() <= 1e-3
    assert not array(lens["kl"]).any()


def test_more_positions_than_a_step_has_room_for(v1: Client, reference: Any) -> None:
    # The text is read in parts, each finding what is before it in the prefix cache.
    lens = read(v1, prompt=LONG, layers=[3, 20])
    assert len(lens["positions"]) > 128
    check(reference, lens, expected(reference, lens["token_ids"]))
    some = read(v1, prompt=LONG, layers=[20], positions=[150, -1, 3, 3, 70])
    assert some["positions"] == [3, 70, 150, lens["prompt_tokens"] - 1]
    check(reference, some, expected(reference, some["token_ids"]))


def test_steering_is_seen_from_its_layer_on(v1: Client, reference: Any) -> None:
    vector = 2 * np.random.default_rng(9).standard_normal(576).astype(np.float32)
    body = safetensors.numpy.save({f"layer.{STEERED}": vector})
    assert v1.http.put("/v1/vectors/lens-residual", content=body).is_success
    steer = {"vector": "lens-residual", "strength": 1.0, "at": "residual"}
    text = LONG[:500]  # of more tokens than a step has room for
    layers = [0, STEERED - 1, STEERED, LAYERS - 1]
    plain = read(v1, prompt=text, layers=layers)
    steered = read(v1, prompt=text, layers=layers, logit_control={"steer": [steer]})
    assert len(plain["positions"]) > 64
    check(reference, steered, expected(reference, steered["token_ids"], vector))
    moved = np.abs(array(steered["entropy"]) - array(plain["entropy"])).max(axis=1)
    assert moved[:2].max() <= 1e-3
    assert moved[2] > 0.01
    # A window over what is generated leaves the prompt alone, wherever its parts end.
    window = {**steer, "when": {"from": -3}}
    late = read(v1, prompt=text, logit_control={"steer": [window]}, layers=[STEERED])
    apart = np.abs(array(late["entropy"])[0] - array(plain["entropy"])[2])
    assert apart[:-4].max() <= 1e-3
    assert (apart[-4:] > 1e-3).all()


def test_generated_positions_are_read_too(v1: Client, reference: Any) -> None:
    control = {"force": {"text": " live"}, "bias": [{"text": " river", "add": 3.0}]}
    lens = read(v1, max_tokens=5, logit_control=control, layers=[0, 29])
    said = v1.choice(PROMPT, max_tokens=5, logit_control=control, ignore_eos=False)["token_ids"]
    assert lens["token_ids"][lens["prompt_tokens"] :] == said
    check(reference, lens, expected(reference, lens["token_ids"]))


def test_lists_say_the_same_as_arrays(v1: Client) -> None:
    arrays = read(v1, layers=[5], positions=[0, -1], k=3)
    lists = read(v1, layers=[5], positions=[0, -1], k=3, encoding="json")
    assert np.array(lists["top"]["logprobs"]) == pytest.approx(array(arrays["top"]["logprobs"]))
    assert lists["next"]["logprobs"][0][1] is None
    assert np.array(lists["top"]["tokens"]).shape == (1, 2, 3)


def test_arrow_says_the_same_as_json(v1: Client) -> None:
    fields = {"prompt": PROMPT, "layers": [3, 29], "positions": [0, 5, -1], "k": 4}
    answer = v1.http.post("/v1/lens", json=fields).json()
    table = arrow(v1, "/v1/lens", fields)
    about = orjson.loads(table.schema.metadata[b"sensefield.response"])
    assert about.items() <= answer.items()
    assert answer.keys() - about.keys() == {"top", "entropy", "kl", "next"}

    def flat(cells: Any) -> list[Any]:
        return [cell for layer in cells for cell in layer]

    count = len(answer["layers"])
    assert table["layer"].to_pylist() == [3, 3, 3, 29, 29, 29]
    assert table["position"].to_pylist() == answer["positions"] * count
    assert (
        table["token"].to_pylist() == [answer["tokens"][at] for at in answer["positions"]] * count
    )
    assert table["next_token_id"].to_pylist() == answer["next"]["token_ids"] * count
    assert table["tokens"].to_pylist() == flat(answer["top"]["tokens"])
    assert table["token_ids"].to_pylist() == flat(answer["top"]["token_ids"])
    for column in ("entropy", "kl"):
        assert table[column].to_pylist() == pytest.approx(flat(answer[column]))
    for row, logprobs in zip(
        table["logprobs"].to_pylist(), flat(answer["top"]["logprobs"]), strict=True
    ):
        assert row == pytest.approx(logprobs)
    for own, theirs in zip(
        table["next_logprob"].to_pylist(), flat(answer["next"]["logprobs"]), strict=True
    ):
        assert own == theirs if own is None else own == pytest.approx(theirs)
    ranks = [rank or 0 for rank in table["next_rank"].to_pylist()]
    assert ranks == flat(answer["next"]["ranks"])


def test_both_runners_read_the_same(v1: Client, v2: Client) -> None:
    vector = 2 * np.random.default_rng(9).standard_normal(576).astype(np.float32)
    body = safetensors.numpy.save({f"layer.{STEERED}": vector})
    steer = {"vector": "lens-runners", "strength": 1.0, "at": "residual"}
    fields: dict[str, Any] = {
        **{"max_tokens": 3, "layers": [0, STEERED, 29], "positions": [0, 7, -4, -2, -1]},
        "logit_control": {"force": {"text": " live"}, "steer": [steer]},
    }
    found = []
    for client in (v1, v2):
        assert client.http.put("/v1/vectors/lens-runners", content=body).is_success
        found.append(read(client, **fields))
    first, second = found
    assert first["tokens"][first["prompt_tokens"]] == " live"
    assert first["token_ids"] == second["token_ids"]
    assert first["positions"] == second["positions"]
    assert np.abs(array(first["top"]["logprobs"]) - array(second["top"]["logprobs"])).max() <= 1e-3
    for name in ("entropy", "kl"):
        assert np.abs(array(first[name]) - array(second[name])).max() <= 1e-3
    own, other = (array(lens["next"]["logprobs"]) for lens in found)
    assert np.isnan(own[:, -1]).all()
    np.testing.assert_allclose(own, other, atol=1e-3, equal_nan=True)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"layers": [3, LAYERS]}, "layers[1]"),
    ({"layers": [-1]}, "layers[0]"),
    ({"layers": []}, "layers"),
    ({"positions": [0, 14]}, "positions[1]"),
    ({"positions": [-15]}, "positions[0]"),
    ({"positions": []}, "positions"),
    ({"k": 0}, "k"),
    ({"k": 49153}, "k"),
    ({"k": 40000, "prompt": [1] * 500}, "k"),
    ({"prompt": [1] * 600}, "positions"),
    ({"prompt": [1] * 1000, "max_tokens": 24}, "max_tokens"),
    ({"prompt": [49152]}, "prompt[0]"),
    ({"prompt": None}, "body"),
    ({"encoding": "arrow"}, "encoding"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_cannot_be_read_is_refused(v1: Client, fields: dict[str, Any], param: str) -> None:
    status, error = v1.refused("/v1/lens", {"prompt": PROMPT, **fields})
    assert (status, error["param"]) == (400, param), error
