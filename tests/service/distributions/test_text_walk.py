"""The place of each token in its text, also where tokens are parts of characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logit_processors.vocabulary import Vocabulary
from service.distributions.text_walk import TextWalk, text_after
from service.distributions.token_texts import TokenTexts

BYTES = [bytes([value]) for value in range(256)]
END, SEA, SPACED = 256, 257, 258
BEGUN = 259
TOKENS = [*BYTES, b"<end>", b" sea", b" T", b" \xe2"]
TEXTS = TokenTexts(Vocabulary(TOKENS, frozenset({END})))


def walk(*, skips_special: bool = True) -> TextWalk:
    return TextWalk(TEXTS, skips_special=skips_special)


def test_a_character_belongs_to_the_token_that_completes_it() -> None:
    tokens = [*" ≠".encode(), SEA]
    placed = list(map(walk().step, tokens))
    assert [(each.text, each.offset) for each in placed] == [
        (" ", 0), ("", 1), ("", 1), ("≠", 1), (" sea", 2),
    ]  # fmt: skip
    assert [each.begun for each in placed] == [b"", b"", b"\xe2", b"\xe2\x89", b""]


def test_a_token_that_ends_inside_of_a_character_is_told_with_it() -> None:
    placed = list(map(walk().step, [SEA, BEGUN, *"≠".encode()[1:], SEA]))
    assert [(each.text, each.offset) for each in placed] == [
        (" sea", 0), ("", 4), ("", 4), (" ≠", 4), (" sea", 6),
    ]  # fmt: skip
    assert [text_after(b" \xe2\x89", end) for end in (b"\xa0", b"", b"a", b"\xa0 b")] == [
        " ≠", "", " \ufffda", " ≠ b",
    ]  # fmt: skip


@given(st.text())
def test_the_tokens_join_to_the_text_and_stand_where_they_begin(text: str) -> None:
    joined = ""
    for placed in map(walk().step, text.encode()):
        assert placed.offset == len(joined)
        joined += placed.text
    assert joined == text


@given(st.binary())
def test_bytes_that_are_no_text_are_replaced_as_a_whole(data: bytes) -> None:
    read = walk()
    told = "".join(read.step(value).text for value in data)
    end = text_after(read.step(ord("a")).begun, b"a")
    assert told + end == (data + b"a").decode(errors="replace")


def test_a_control_token_that_the_text_leaves_out_takes_no_place() -> None:
    tokens = [SEA, END, SEA]
    assert [each.offset for each in map(walk().step, tokens)] == [0, 4, 4]
    assert [each.offset for each in map(walk(skips_special=False).step, tokens)] == [0, 4, 9]
    assert walk().step(END).text == "<end>"


def test_a_control_token_left_out_does_not_break_a_character_off() -> None:
    read = walk()
    first, _, last = map(read.step, [0xC3, END, 0xA9])
    assert (first.text, last.text, last.offset) == ("", "é", 0)


def test_a_prompts_tokens_stand_in_its_own_text() -> None:
    # A control token and a space that the tokenizer put in front, and one that the text holds.
    read = walk()
    placed = read.along([END, SPACED, ord("o"), END, SEA], "To<end> sea")
    assert [each.offset for each in placed] == [0, 0, 1, 2, 7]
    assert read.step(SEA).offset == len("To<end> sea")


def test_a_prompt_whose_tokenizer_changes_it_ends_where_its_text_does() -> None:
    read = walk()
    placed = read.along([ord("t"), ord("o"), *b"abc"], "TO")
    assert [each.offset for each in placed] == [0, 1, 2, 2, 2]
    assert read.step(SEA).offset == 2


def test_choices_go_on_from_their_prompt_each_by_itself() -> None:
    read = walk()
    read.along([*b"a", 0xC3], "a")
    one, other = read.branch(), read.branch()
    assert [one.step(0xA9)[1:3], other.step(0xA8)[1:3]] == [("é", 1), ("è", 1)]


def test_what_a_prompt_has_begun_is_completed_after_it() -> None:
    read = walk()
    read.follow([SEA, *"😊".encode()[:3]])
    assert read.step("😊".encode()[3])[1:3] == ("😊", 0)
