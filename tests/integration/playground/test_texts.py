"""Two texts, their colours, their tokens, and going another way."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import Page, expect

from tests.integration.client import Client, array
from tests.integration.playground.person import (
    CHAT,
    MESSAGES,
    OCEAN,
    TOKENS,
    asked,
    run,
    sent,
    settled,
    tokens,
    told,
)


def test_one_click_streams_two_texts_and_marks_where_they_part(page: Page, v1: Client) -> None:
    bodies = sent(page)
    run(page)
    body = bodies[0]
    assert body["stream"] is True
    assert body["distribution"]["stages"] == ["base", "controlled"]
    ids = [array(asked(v1, each)["sampled"]["token_id"]) for each in (None, OCEAN)]
    assert [tokens(page, lane).count() for lane in ("Without control", "With control")] == [
        len(each) for each in ids
    ]
    shared = min(map(len, ids))
    parts = int(np.flatnonzero(ids[0][:shared] != ids[1][:shared])[0])
    expect(told(page)).to_have_text(f"The two texts part at token {parts + 1}.")
    for lane in ("Without control", "With control"):
        expect(tokens(page, lane).nth(parts)).to_have_class("token parts")
    assert set(shares(page, "Without control")) == {0}
    assert shares(page, "With control")[parts] > 0


def test_colours_say_what_they_stand_for(page: Page, v1: Client) -> None:
    run(page)
    answer = asked(v1)
    logprobs = array(answer["sampled"]["controlled_logprob"])
    wanted = {
        "Probability": np.exp(logprobs),
        "Surprisal": -logprobs / 6,
        "Entropy": array(answer["controlled"]["entropy"]) / 5,
        "KL": np.sqrt(np.maximum(array(answer["kl"]), 0) / 4),
    }
    for name, values in wanted.items():
        page.locator(".colours label", has_text=name).click()
        expect(page.get_by_role("radio", name=name)).to_be_checked()
        page.evaluate("() => new Promise(requestAnimationFrame)")  # until it is drawn
        np.testing.assert_allclose(
            shares(page, "With control"), np.clip(values, 0, 1), atol=0.02, err_msg=name
        )


def shares(page: Page, lane: str) -> list[float]:
    """Return how strongly each token of a lane is coloured."""
    read = "found => found.map(each => Number(each.style.getPropertyValue('--share')))"
    found: list[float] = tokens(page, lane).evaluate_all(read)
    return found


def test_a_clicked_token_shows_its_distribution_before_and_after(page: Page, v1: Client) -> None:
    run(page)
    answer = asked(v1)
    place = int(np.argmax(array(answer["kl"])))
    tokens(page, "With control").nth(place).click()
    expect(page.get_by_role("heading", name=f"Token {place + 1}:")).to_be_visible()
    sampled = {name: array(tensor)[place] for name, tensor in answer["sampled"].items()}
    figures = page.locator(".figures tr")
    expect(figures.nth(2)).to_have_text(f"rank{sampled['base_rank']}{sampled['controlled_rank']}")
    expect(figures.nth(5)).to_contain_text(f"{array(answer['kl'])[place]:.1f}")
    drawn = page.locator(".bars .drawn .number").last
    assert (
        abs(float(drawn.inner_text().split()[0]) / 100 - np.exp(sampled["controlled_logprob"]))
        < 0.01
    )
    page.get_by_role("button", name="Find the neighbours").click()
    # This model has one matrix at both ends.
    expect(page.get_by_role("heading", name="Going in and coming out")).to_be_visible()
    expect(page.locator(".near li")).to_have_count(18)


def test_a_slider_goes_through_zero(page: Page) -> None:
    run(page)
    slider = page.get_by_role("slider", name="Bias of “ ocean” in nats")
    slider.fill("0")
    expect(told(page)).to_have_text("The two texts are the same.")
    slider.fill("-8")
    settled(page)
    slider.fill("8")
    expect(told(page)).to_contain_text("part at token")
    expect(tokens(page, "With control").filter(has_text="ocean").first).to_be_visible()


def test_a_chosen_place_stays_where_a_text_is_shorter(page: Page) -> None:
    run(page)
    place, fewer = 9, 4
    tokens(page, "With control").nth(place).click()
    for count, shown in ((fewer, fewer), (TOKENS, place + 1)):
        page.get_by_label("Most tokens").fill(str(count))
        page.get_by_role("slider", name="Bias of “ ocean” in nats").fill(str(count))
        expect(tokens(page, "With control")).to_have_count(count)
        settled(page)
        expect(page.get_by_role("heading", name=f"Token {shown}:")).to_be_visible()
        expect(tokens(page, "With control").nth(shown - 1)).to_have_attribute(
            "aria-selected", "true"
        )


def test_another_token_is_taken_and_the_text_goes_on_from_there(page: Page) -> None:
    run(page)
    before = tokens(page, "With control").all_inner_texts()
    tokens(page, "With control").nth(3).click()
    expect(page.get_by_role("heading", name="Token 4:")).to_be_visible()
    other = page.locator(".bars tr:not(.drawn) button").first
    taken = other.inner_text()
    other.click()
    settled(page)
    expect(tokens(page, "With control").nth(3)).to_have_class("token forced")
    after = tokens(page, "With control").all_inner_texts()
    assert after[:3] == before[:3]
    assert after[3].strip() == taken.strip()
    page.get_by_role("button", name="Undo the branch").click()
    expect(tokens(page, "With control").nth(3)).to_have_text(before[3])


def test_an_edited_prompt_is_asked_in_both_lanes(page: Page) -> None:
    run(page)
    bodies = sent(page)
    page.get_by_role("textbox", name="Prompt").fill("Describe a river.")
    with page.expect_request(f"**{CHAT}"):
        page.get_by_role("slider", name="Bias of “ ocean” in nats").fill("2")
    settled(page)
    assert [body["messages"][0]["content"] for body in bodies] == ["Describe a river."] * 2


def test_a_branch_is_of_the_prompt_that_its_text_has(page: Page) -> None:
    run(page)
    bodies = sent(page)
    page.get_by_role("textbox", name="Prompt").fill("Describe a river.")
    page.get_by_label("Seed").fill("7")
    tokens(page, "With control").nth(3).click()
    page.locator(".bars tr:not(.drawn) button").first.click()
    settled(page)
    (body,) = bodies
    assert (body["messages"], body["seed"]) == (MESSAGES, 1)
    assert len(body["logit_control"]["force"]["token_ids"]) == 4
    assert body["logit_control"]["bias"] == OCEAN["bias"]
