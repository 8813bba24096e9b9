"""The committed reference of the API is the one that the server's OpenAPI makes."""

from __future__ import annotations

from docs.api import PAGE, page
from tests.integration.client import Client


def test_the_page_is_what_the_server_says_of_itself(v1: Client) -> None:
    made = page(v1.http.get("/openapi.json").json())
    assert PAGE.read_text() == made, "run: python docs/api.py"
