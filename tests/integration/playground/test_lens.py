"""The lens on the page: what each layer would already say."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from playwright.sync_api import Locator, Page, expect

from tests.integration.client import Client, array
from tests.integration.playground.person import (
    UNKNOWN,
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
    lens = lens_of(v1, ids)
    expect(page.locator(".map thead th").last).to_contain_text("settles at layer")
    settled_at = page.locator(".map td.settles").all_inner_texts()
    assert settled_at == [settling_layer(ranks) for ranks in np.array(lens["next"]["ranks"]).T]
    assert len(set(settled_at)) > 2
    # Of layer 20, whose likeliest tokens are seldom those that came.
    caption = page.locator(".lens > p")
    expect(caption).to_contain_text("the probability that this layer gives the token that came")
    came, top = np.exp(lens["next"]["logprobs"][20]), np.exp(lens["top"]["logprobs"][20])[:, 0]
    assert np.abs(came - top).max() > 0.1
    np.testing.assert_allclose(shares(rows.nth(LAYERS - 21)), came, atol=0.01)
    page.locator(".lens label", has_text="the token in the cell").click()
    expect(caption).to_contain_text("the probability that this layer gives the token in the cell")
    np.testing.assert_allclose(shares(rows.nth(LAYERS - 21)), top, atol=0.01)


def shares(row: Locator) -> list[float]:
    """Return how strongly each cell of a layer is coloured."""
    read = "found => found.map(each => Number(each.style.getPropertyValue('--share')))"
    found: list[float] = row.locator("td").evaluate_all(read)
    return found


def lens_of(v1: Client, ids: list[int]) -> Any:
    """Return the lens of the page's prompt and an answer to it, at each token of the answer."""
    prompt = prompt_ids(v1)
    positions = [len(prompt) - 1 + at for at in range(len(ids))]
    body = {"model": MODEL, "prompt": prompt + ids, "positions": positions, "k": 1}
    answer = v1.http.post("/v1/lens", json=body)
    assert answer.is_success, answer.text
    return answer.json()


def settling_layer(ranks: Any) -> str:
    """Return the layer from which on a rank stays 1, as the page writes it."""
    others = np.flatnonzero(ranks != 1)
    first = int(others[-1]) + 1 if len(others) else 0
    return str(first) if first < LAYERS else "\N{EN DASH}"


def check_comparison(page: Page, v1: Client, entry: dict[str, Any]) -> None:
    """Hold what the page says was before steering against `/v1/score`, and KL against nothing."""
    ids = [int(line.split("token ")[1].split("\n")[0]) for line in titles(page)]
    control = {"logit_control": {"steer": [entry]}}
    body = {"prompt": prompt_ids(v1), "continuations": [ids], **control}
    (score,) = v1.http.post("/v1/score", json=body).raise_for_status().json()["continuations"]
    moved = np.abs(np.subtract(score["base"]["logprobs"], score["controlled"]["logprobs"]))
    place = int(moved.argmax())
    assert moved[place] > 0.1, "else both are the same"
    expect(page.locator(".colours > p")).to_contain_text("Underlined: not known, a vector steered")
    expect(tokens(page, "With control").nth(place)).to_have_class(re.compile("unknown"))
    assert "unknown" not in str(tokens(page, "Without control").first.get_attribute("class"))
    tokens(page, "With control").nth(place).click()
    expect(page.locator(".distribution > p").first).to_contain_text("the model without any control")
    figures = page.locator(".figures tr")
    found = figures.nth(1).locator("td").all_inner_texts()
    for stage, shown in zip(("base", "controlled"), found, strict=True):
        wanted = 100 * np.exp(score[stage]["logprobs"][place])
        assert abs(float(shown.removesuffix("%")) - wanted) < 0.2
    ranks = [score[stage]["ranks"][place] for stage in ("base", "controlled")]
    expect(figures.nth(2)).to_have_text(f"rank{ranks[0]}{ranks[1]}")
    expect(figures.nth(5)).to_have_text(f"KL{UNKNOWN}")
    # The bars before control are of the same row as the figures.
    expect(page.locator(".bars .drawn .before .number")).to_have_text(found[0])


def titles(page: Page) -> list[str]:
    """Return what a pointer that rests on the tokens with control is shown."""
    read = "found => found.map(each => each.title)"
    found: list[str] = tokens(page, "With control").evaluate_all(read)
    return found


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
    check_comparison(page, v1, entry)
    tokens(page, "With control").first.click()
    rows = read(page)
    # Greedy choices of the steered model: its last layer has each as its likeliest.
    count = tokens(page, "With control").count()
    expect(rows.first.locator("td.first")).to_have_count(count)
