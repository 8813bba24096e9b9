"""A request that is asked again and again beside others, and must never notice them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.integration.client import Client, array

REQUEST: dict[str, Any] = {
    "prompt": "The history of the city begins with a small group of people who",
    "seed": 7,
    "logit_control": {
        "bias": [{"text": " river", "add": 8.0}, {"token_id": 28, "add": 4.0}],
        "suppress": [{"text": "the", "ignore_case": True}],
    },
    "distribution": {"top_k": 20, "stages": ["base", "controlled"]},
}


class Canary:
    """Knows its answer from when it was alone."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._alone = client.choice(**REQUEST)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask in a thread until the context ends, which raises what went wrong there."""
        ending = threading.Event()

        def ask() -> None:
            while not ending.is_set():
                self.check(self._client.choice(**REQUEST))

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask)
            try:
                yield
            finally:
                ending.set()
        asked.result()

    def check(self, choice: dict[str, Any]) -> None:
        """Assert that an answer is the one from before."""
        for field in ("text", "token_ids", "finish_reason"):
            assert choice[field] == self._alone[field]
        for stage in REQUEST["distribution"]["stages"]:
            rows, alone = (
                array(each["distribution"][stage]["logprobs"]) for each in (choice, self._alone)
            )
            # A step of more rows may round otherwise than a step of one.
            assert np.abs(rows - alone).max() <= 1e-3
