"""Reading Arrow streams off a server, batch by batch, with their metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pyarrow as pa

from tests.integration.client import Client
from tests.integration.servers import MODEL

ACCEPT = {"accept": "application/vnd.apache.arrow.stream"}


@dataclass
class Stream:
    """What was read of a stream."""

    schema: Any
    batches: list[Any] = field(default_factory=list)
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    broken: bool = False
    """Whether the reader raised an error before the end."""

    @property
    def table(self) -> Any:
        """All rows."""
        return pa.Table.from_batches(self.batches, self.schema)


def read(source: Any) -> Stream:
    """Read a stream of bytes, or of anything that pyarrow reads from, to its end."""
    reader = pa.ipc.open_stream(source)
    stream = Stream(reader.schema)
    try:
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            if batch.num_rows:
                stream.batches.append(batch)
            if metadata is not None:
                stream.response = _json(metadata, b"sensefield.response")
                stream.error = _json(metadata, b"sensefield.error")
    except StopIteration:
        pass
    except pa.ArrowInvalid:
        stream.broken = True
    return stream


def _json(metadata: Any, key: bytes) -> Any:
    return orjson.loads(metadata[key]) if key in metadata else None


def body(prompt: str | list[str], **fields: Any) -> dict[str, Any]:
    """Return a completion request, greedy and 8 tokens long unless told otherwise."""
    return {
        **{"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0},
        **{"ignore_eos": True, "return_token_ids": True, **fields},
    }


def stream(client: Client, prompt: str | list[str], **fields: Any) -> Stream:
    """Return the stream of a completion."""
    answer = post(client, "/v1/completions", body(prompt, **fields))
    assert answer.is_success, answer.text
    assert answer.headers["content-type"] == ACCEPT["accept"]
    return read(answer.content)


def post(client: Client, path: str, json: dict[str, Any]) -> httpx.Response:
    """Send a request that accepts an Arrow stream."""
    return client.http.post(path, json=json, headers=ACCEPT)


def table(client: Client, path: str, json: dict[str, Any]) -> Any:
    """Return an answer that is one table."""
    answer = post(client, path, json)
    assert answer.is_success, answer.text
    assert answer.headers["content-type"] == ACCEPT["accept"]
    return pa.ipc.open_stream(answer.content).read_all()
