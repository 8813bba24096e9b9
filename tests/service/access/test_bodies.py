"""Requests whose JSON has been checked."""

from __future__ import annotations

from typing import Any

from service.access.bodies import name_messages


def test_a_message_of_a_response_has_its_type() -> None:
    said = {"role": "assistant", "content": []}
    body: dict[str, Any] = {"input": [dict(said), {**said, "type": "other"}, {"id": "a"}, "text"]}
    name_messages(body)
    assert body["input"] == [
        {**said, "type": "message"},
        {**said, "type": "other"},
        {"id": "a"},
        "text",
    ]
    others: list[dict[str, Any]] = [
        {},
        {"input": "text"},
        {"input": {"role": "user", "content": ""}},
    ]
    for other in others:
        same = dict(other)
        name_messages(same)
        assert same == other
