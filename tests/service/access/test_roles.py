"""Which role opens which path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.roles import allowed_roles


@pytest.mark.parametrize(
    ("method", "path", "roles"),
    [
        ("POST", "/v1/chat/completions", {"inference"}),
        ("POST", "/v1/responses", {"inference"}),
        ("GET", "/v1/responses/resp_1", {"inference"}),
        ("GET", "/v1/models", {"inference"}),
        ("POST", "/tokenize", {"inference"}),
        ("GET", "/v1/vectors", {"inference", "vectors"}),
        ("GET", "/v1/vectors/calm/nearest", {"inference", "vectors"}),
        ("POST", "/v1/vectors", {"vectors"}),
        ("PUT", "/v1/vectors/calm", {"vectors"}),
        ("DELETE", "/v1/vectors/calm", {"vectors"}),
        ("OPTIONS", "/v1/vectors", {"vectors"}),
        ("GET", "/metrics", {"metrics"}),
        ("GET", "/metrics/", {"metrics"}),
        ("GET", "/version", {"inference", "metrics"}),
        ("GET", "/metricsx", set()),
        ("GET", "/v1/vectorsx", set()),
        ("GET", "/v1/chat/completionsx", set()),
        ("POST", "/v1/load_lora_adapter", set()),
        ("POST", "/collective_rpc", set()),
        ("GET", "", set()),
        ("GET", "//v1/models", set()),
        ("GET", "/V1/models", set()),
    ],
)
def test_roles_of_a_path(method: str, path: str, roles: set[str]) -> None:
    assert allowed_roles(method, path) == roles | {"admin"}


@given(st.text(), st.text())
def test_what_nobody_named_is_for_administrators(method: str, path: str) -> None:
    # Hypothesis tries the texts of the source too, the named paths among them.
    assert allowed_roles(method, f"/unnamed{path}") == {"admin"}
