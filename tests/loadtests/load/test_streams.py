"""When tokens came, of event streams and of Arrow streams cut at any place."""

from __future__ import annotations

from itertools import count

import pyarrow as pa
import pytest

from loadtests.load.streams import Batches, Events, Stream
from loadtests.measure.client import RequestError

ROLE, TOKEN, DONE = b'data: {"role"}\n\n', b"data: {}\n\n", b"data: [DONE]\n\n"


def read(stream: Stream, *chunks: bytes) -> list[float]:
    for chunk in chunks:
        stream.see(chunk)
    return stream.tokens()


def arrow(*rows: int) -> list[bytes]:
    """Return the messages of a stream of batches with so many rows: schema, batches, end."""
    sink = pa.BufferOutputStream()
    table = pa.table({"token_id": pa.array(range(10), pa.int32())})
    edges = [0]
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for size in rows:
            edges.append(sink.tell())
            writer.write_batch(table.to_batches()[0].slice(0, size))
        edges.append(sink.tell())
    content = sink.getvalue().to_pybytes()
    return [content[a:b] for a, b in zip(edges, [*edges[1:], None], strict=True)]


def test_events_between_the_role_and_the_end_are_tokens() -> None:
    stream = Events(count(1.0).__next__)
    assert read(stream, ROLE + TOKEN, TOKEN + TOKEN, TOKEN + DONE) == [1.0, 2.0, 2.0]


@pytest.mark.parametrize("chunks", [(), (ROLE, TOKEN), (ROLE, TOKEN, DONE[:-4])])
def test_events_that_end_early_are_an_error(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(RequestError, match="before"):
        read(Events(), *chunks)


def test_the_end_is_known_wherever_it_is_cut() -> None:
    for at in range(1, len(DONE) - 1):
        assert len(read(Events(), ROLE + TOKEN * 3, DONE[:at], DONE[at:])) == 2


def test_rows_came_with_the_last_byte_of_their_batch() -> None:
    head, one, two, end = arrow(1, 2)
    stream = Batches(count(1.0).__next__)
    assert read(stream, head, one[:-1], one[-1:] + two, end) == [3.0, 3.0, 3.0]
    stream = Batches(count(1.0).__next__)
    assert read(stream, head + one, two, end) == [1.0, 2.0, 2.0]


def test_a_broken_arrow_stream_is_an_error() -> None:
    head, one, two, _ = arrow(1, 2)
    with pytest.raises(RequestError, match="broken"):
        read(Batches(), head, one, two[:-10])
