"""The lens on the page: what each layer would already say."""

from __future__ import annotations

from typing import Any

import numpy as np
from playwright.sync_api import Locator, Page, expect

from tests.integration.client import Client, array
from tests.integration.playground.person import (
    asked,
    prompt_ids,
    run,
    sent,
    settled,
    tokens,
    told,
)
from tests.integration.servers import MODEL

LAYERS = 30


def read(page: Page) -> Locator:
    """Read every layer at each token of the chosen text; return the rows, the last layer first."""
    page.get_by_role("button", name="Read every layer").click()
    rows = page.locator(".map tbody tr")
    expect(rows).to_have_count(LAYERS)
    return rows


def test_the_lens_shows_where_the_answer_appears(page: Page, v1: Client) -> None:
    run(page)
    rows = read(page)
    answer = asked(v1)
    ids = array(answer["sampled"]["token_id"]).tolist()
    expect(rows.first.locator("td")).to_have_count(len(ids))
    # The last layer is what the model says: its greedy choices, before control.
    greedy = array(answer["sampled"]["base_rank"]) == 1
    expect(rows.first.locator("td.first")).to_have_count(int(greedy.sum()))
    told_first = page.locator(".map td.appears").all_inner_texts()
    assert told_first == [first_layer(ranks) for ranks in ranks_of(v1, ids).T]
    assert len(set(told_first)) > 2


def ranks_of(v1: Client, ids: list[int]) -> Any:
    """Return each layer's rank of each token of the answer, ``[layers, tokens]``."""
    prompt = prompt_ids(v1)
    positions = [len(prompt) - 1 + at for at in range(len(ids))]
    body = {"model": MODEL, "prompt": prompt + ids, "positions": positions}
    answer = v1.http.post("/v1/lens", json=body)
    assert answer.is_success, answer.text
    return np.array(answer.json()["next"]["ranks"])


def first_layer(ranks: Any) -> str:
    """Return the layer from which on a rank stays 1, as the page writes it."""
    others = np.flatnonzero(ranks != 1)
    first = int(others[-1]) + 1 if len(others) else 0
    return str(first) if first < LAYERS else "\N{EN DASH}"


def test_it_reads_steering_where_the_text_was_steered(page: Page, v1: Client) -> None:
    """A window counts from the answer's first token, in the lens as in the text."""
    sides = {"positive": ["I love the sea"], "negative": ["I hate the sea"], "layers": [14]}
    made = v1.http.post("/v1/vectors", json={"name": "surge", "from": {"contrast": sides}})
    assert made.is_success, made.text
    page.reload()
    page.get_by_role("button", name="Remove bias 1").click()
    page.get_by_role("button", name="+ Steer").click()
    page.get_by_label("Vector", exact=True).select_option("surge")
    page.get_by_label("Strength of surge, exactly").fill("4")
    page.locator(".finer summary").first.click()
    page.get_by_label("From position").fill("0")
    page.get_by_label("Until before").fill("6")
    bodies = sent(page)
    run(page)
    settled(page)
    (entry,) = bodies[1]["logit_control"]["steer"]
    assert (entry["at"], entry["when"]) == ("residual", {"from": 0, "until": 6})
    expect(told(page)).to_contain_text("part at token")
    tokens(page, "With control").first.click()
    rows = read(page)
    # Greedy choices of the steered model: its last layer has each as its likeliest.
    count = tokens(page, "With control").count()
    expect(rows.first.locator("td.first")).to_have_count(count)
