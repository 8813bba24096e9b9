"""The committed reference of the API, and the names in the OpenAPI that it is made of."""

from __future__ import annotations

from docs.api import PAGE, page
from tests.integration.client import Client


def test_the_page_is_what_the_server_says_of_itself(v1: Client) -> None:
    spec = v1.http.get("/openapi.json").json()
    for plugin in ("fresh", "failing"):  # installed in this server, and no part of Sensefield
        del spec["components"]["schemas"]["LogitControl"]["properties"][plugin]
    made = page(spec)
    assert PAGE.read_text() == made, "run: python docs/api.py"


def test_no_object_of_ours_has_the_name_of_one_of_vllms(v1: Client) -> None:
    """Two of one name get their modules' names too, of which generated clients make nothing."""
    schemas = v1.http.get("/openapi.json").json()["components"]["schemas"]
    assert "PromptMessage" in schemas
    assert [name for name in schemas if name.startswith("service__")] == []
