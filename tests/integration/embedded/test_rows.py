"""The embedded model as it is served by default: in bfloat16, whose logits vLLM copies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.integration.client import Client, array
from tests.integration.servers import OwnServer

pytestmark = pytest.mark.xdist_group("embedded")

BOTH = ["base", "controlled"]
REQUESTS = 24


@pytest.fixture(scope="module")
def client(embedded: OwnServer) -> Iterator[Client]:
    found = Client(embedded)
    yield found
    found.http.close()


@pytest.mark.parametrize("own", [None, 4.0])
def test_rows_stay_with_their_requests_as_others_come_and_go(
    own: float | None, client: Client
) -> None:
    """All want the same of their rows, and end in another order than they began."""
    requests = []
    for number in range(REQUESTS):
        request: dict[str, Any] = {
            "prompt": f"{number}: the history of the city number {number} begins with",
            "max_tokens": 3 + 7 * number % 23,
            "distribution": {"top_k": 4, "stages": BOTH},
        }
        if own is not None:
            request["logit_control"] = {"bias": [{"token_id": 100 + number, "add": own}]}
        requests.append(request)
    for request, choice in zip(requests, client.together(requests), strict=True):
        told = choice["distribution"]
        drawn = array(told["sampled"]["token_id"])
        assert drawn.tolist() == choice["token_ids"]
        assert len(drawn) == request["max_tokens"]
        # Greedy: each token is the likeliest of its own request's row, and no other's.
        assert array(told["sampled"]["controlled_rank"]).tolist() == [1] * len(drawn)
        assert array(told["controlled"]["token_ids"])[:, 0].tolist() == drawn.tolist()
        np.testing.assert_array_equal(
            array(told["controlled"]["logprobs"])[:, 0],
            array(told["sampled"]["controlled_logprob"]),
        )
        shares_base = array(told["base"]["token_ids"])[:, 0] == drawn
        assert shares_base.mean() > 0.5


def test_plain_logprobs_stay_with_their_requests_too(client: Client) -> None:
    requests = [
        {"prompt": f"{at}: once there was", "max_tokens": 2 + 5 * at % 17, "logprobs": 2}
        for at in range(REQUESTS)
    ]
    for choice in client.together(requests):
        told = choice["logprobs"]
        for chosen, best in zip(told["token_logprobs"], told["top_logprobs"], strict=True):
            assert chosen == max(best.values())
