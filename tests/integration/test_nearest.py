"""What vectors and tokens are close to, against the weights in transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from logit_processors.vocabulary import Vocabulary
from tests.integration.client import Client


@pytest.fixture(scope="module")
def weights(reference: Any) -> dict[str, NDArray[np.float64]]:
    """W_E, W_U ``[vocab, hidden]`` and the final norm's gain ``[hidden]``."""
    return {
        "embedding": reference.get_input_embeddings().weight.detach().double().numpy(),
        "unembedding": reference.get_output_embeddings().weight.detach().double().numpy(),
        "gain": reference.model.norm.weight.detach().double().numpy(),
    }


def test_each_layer_is_read_through_the_final_norm(
    v1: Client, weights: dict[str, NDArray[np.float64]]
) -> None:
    rng = np.random.default_rng(11)
    layers = {f"layer.{n}": rng.standard_normal(576).astype(np.float32) for n in (2, 17)}
    put = v1.http.put("/v1/vectors/deep", content=safetensors.numpy.save(layers))
    assert put.is_success
    found = v1.http.get("/v1/vectors/deep/nearest?k=5").json()
    assert list(found["layers"]) == ["2", "17"]
    assert {side: found[side] for side in ("raised", "lowered")} == found["layers"]["17"]
    for layer in (2, 17):
        scores = weights["unembedding"] @ (weights["gain"] * layers[f"layer.{layer}"])
        scores = (scores - scores.mean()) / scores.std()
        order = np.argsort(scores)
        for side, ids in (("raised", order[::-1][:5]), ("lowered", order[:5])):
            told = found["layers"][str(layer)][side]
            assert [entry["token_id"] for entry in told] == ids.tolist()
            np.testing.assert_allclose([e["score"] for e in told], scores[ids], atol=1e-3)


def test_the_neighbours_of_a_token(v1: Client, weights: dict[str, NDArray[np.float64]]) -> None:
    found = v1.http.get("/v1/tokens/nearest", params={"text": " ocean", "k": 6}).json()
    (token,) = found["token_ids"]
    assert found["tokens"] == [" ocean"]
    for space in ("embedding", "unembedding"):
        rows = weights[space]
        cosines = rows @ rows[token] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[token])
        ids = np.argsort(-cosines)[1:7]
        assert [entry["token_id"] for entry in found[space]] == ids.tolist()
        np.testing.assert_allclose([e["cosine"] for e in found[space]], cosines[ids], atol=1e-4)
    assert {" Ocean", " oceans"} <= {entry["token"] for entry in found["embedding"]}
    same = v1.http.get("/v1/tokens/nearest", params={"token_id": token, "k": 6}).json()
    assert same == found


def test_every_token_has_a_text(v1: Client, vocabulary: Vocabulary) -> None:
    listed = v1.http.get("/v1/tokens").json()
    assert listed["data"] == [token.decode(errors="replace") for token in vocabulary.tokens]
    assert len(listed["data"]) == 49152


def test_a_direction_of_the_embedding(v1: Client, weights: dict[str, NDArray[np.float64]]) -> None:
    source = {"text": " red wine", "space": "embedding"}
    body = {"name": "wine", "from": source, "replace": True}
    made = v1.http.post("/v1/vectors", json=body)
    assert made.is_success, made.text
    rows = weights["embedding"]
    wanted = rows[made.json()["made_from"]["token_ids"]].mean(axis=0) - rows.mean(axis=0)
    found = safetensors.numpy.load(v1.http.get("/v1/vectors/wine/content").content)
    np.testing.assert_allclose(found["layer.0"], wanted, atol=1e-5)


def test_several_tokens_are_taken_in_the_middle(
    v1: Client, weights: dict[str, NDArray[np.float64]]
) -> None:
    found = v1.http.get("/v1/tokens/nearest", params={"text": " red wine", "k": 3}).json()
    ids = found["token_ids"]
    assert len(ids) == 2
    rows = weights["unembedding"]
    middle = rows[ids].mean(axis=0)
    cosines = rows @ middle / np.linalg.norm(rows, axis=1) / np.linalg.norm(middle)
    cosines[ids] = -1
    wanted = np.argsort(-cosines)[:3]
    assert [entry["token_id"] for entry in found["unembedding"]] == wanted.tolist()


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({}, "text"),
        ({"text": "a", "token_id": 1}, "text"),
        ({"text": ""}, "text"),
        ({"text": "a" * 257}, "query.text"),
        ({"token_id": 49152}, "token_id"),
        ({"token_id": -1}, "query.token_id"),
        ({"token_id": "x"}, "query.token_id"),
        ({"text": "a", "k": 0}, "query.k"),
    ],
)
def test_bad_questions(v1: Client, query: dict[str, Any], param: str) -> None:
    answer = v1.http.get("/v1/tokens/nearest", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
