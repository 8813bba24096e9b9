"""A small client: plain HTTP, answers as JSON, distributions as numpy."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.servers import MODEL, Server

TIMEOUT_SECONDS = 300


class Client:
    """Talks to one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.url, timeout=TIMEOUT_SECONDS)

    def complete(self, prompt: str | list[int], **fields: Any) -> dict[str, Any]:
        """Return the completion of a prompt, greedy and 8 tokens long unless told otherwise."""
        body = {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": 8,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            **fields,
        }
        answer = self.http.post("/v1/completions", json=body)
        assert answer.is_success, answer.text
        parsed: dict[str, Any] = answer.json()
        return parsed

    def choice(self, prompt: str | list[int], **fields: Any) -> dict[str, Any]:
        """Return the only choice of a completion."""
        choice: dict[str, Any] = self.complete(prompt, **fields)["choices"][0]
        return choice

    def together(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the choices of completions that run beside one another."""
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(lambda fields: self.choice(**fields), requests))

    def prefix_cache_hits(self) -> float:
        """Return how many prompt tokens have come out of the prefix cache."""
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == "vllm:prefix_cache_hits_total")

    def refused(self, path: str, body: Any, **options: Any) -> tuple[int, dict[str, Any]]:
        """Return status and error object of a request that must be refused."""
        answer = self.http.post(path, json=body, **options)
        return answer.status_code, answer.json()["error"]

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the parsed server-sent events of a streamed answer."""
        found = []
        with self.http.stream("POST", path, json={**body, "stream": True}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    found.append(orjson.loads(line[len("data: ") :]))
        return found


def array(tensor: Any) -> NDArray[Any]:
    """Return a tensor of an answer, base64 or nested lists, as numpy."""
    if not isinstance(tensor, dict):
        return np.array(tensor)
    data = base64.b64decode(tensor["data"])
    return np.frombuffer(data, np.dtype(tensor["dtype"])).reshape(tensor["shape"])
