"""The English of the Python sources: words and openings that the project avoids.

A sentence says who does what: "the route reported", not "it was told"; "the other requests", not
"nobody". A docstring names its object: "The keys of a server.", not "What a server knows."
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "logit_processors", "loadtests", "deploy")
AVOIDED = frozenset(
    {
        *("tell", "tells", "telling", "told", "untold"),
        *("whoever", "whosoever", "whomever", "whatever", "nobody", "somebody"),
    }
)
OPENINGS = frozenset({"Of", "What", "Whatever", "Whether", "Who", "Whoever", "Whose"})
PROMPTS = re.compile(r"\bTell me\b")
"""The beginning of prompts to a model, which are no sentences of the project."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SKIPPED = {tokenize.ENCODING, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def avoided_words(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and word of avoided words in identifiers, comments and strings."""
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_method = before == "." and token.string == "tell"  # of a file of Python's
        if token.type not in _SKIPPED and not is_method:
            for number, line in enumerate(token.string.splitlines(), token.start[0]):
                words = map(str.lower, _WORD.findall(PROMPTS.sub("", line)))
                yield from ((number, word) for word in words if word in AVOIDED)
        before = token.string


def avoided_openings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and first word of docstrings and comments that begin with an avoided word.

    The strings below attributes and constants count as docstrings.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            words = text.split(maxsplit=1) if isinstance(text, str) else []
            if words and words[0] in OPENINGS:
                yield node.lineno, words[0]
    lines = source.splitlines()
    for number, line in enumerate(lines, 1):
        comment = re.match(r"\s*# (\w+)", line)
        is_first = number == 1 or not lines[number - 2].lstrip().startswith("#")
        if comment and is_first and comment[1] in OPENINGS:
            yield number, comment[1]


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_sources_avoid_words_and_openings() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word}"
        for path in sources()
        for check in (avoided_words, avoided_openings)
        for number, word in check(path.read_text())
    ]
    assert found == []


def test_every_package_is_checked() -> None:
    checked = sources()
    assert all(any((ROOT / package) in path.parents for path in checked) for package in PACKAGES)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("told = 1\n", [(1, "told")]),
        ("def _told(): ...\n", [(1, "told")]),
        ("def tell_raised(): ...\n", [(1, "tell")]),
        ("_MAX_TOLD = 1\n", [(1, "told")]),
        ("class ToldWhole: ...\n", [(1, "told")]),
        ("x = 1  # that nobody reads\n", [(1, "nobody")]),
        ("x = f'{y} whatever'\n", [(1, "whatever")]),
        ('"""One.\n\nWhoever asks.\n"""\n', [(3, "whoever")]),
        ("x = answer.told\n", [(1, "told")]),
        ("at = file.tell()\n", []),
        ("prompt = 'Tell me of the sea'\n", []),
        ("intellect = retold = 1\n", []),
    ],
)
def test_finds_avoided_words(source: str, expected: list[tuple[int, str]]) -> None:
    assert list(avoided_words(source)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""What a key may do."""\n', [(1, "What")]),
        ('def f():\n    """Whether it may."""\n', [(2, "Whether")]),
        ('class A:\n    b: int\n    """Of the answer."""\n', [(3, "Of")]),
        ('LIMIT = 1\n"""Whose it is."""\n', [(2, "Whose")]),
        ("# Who asks.\nx = 1\n", [(1, "Who")]),
        ("# A row that is kept.\n# What else.\nx = 1\n", []),
        ('"""Official names."""\n', []),
        ('x = "What is it?"\n', []),
    ],
)
def test_finds_avoided_openings(source: str, expected: list[tuple[int, str]]) -> None:
    assert list(avoided_openings(source)) == expected
