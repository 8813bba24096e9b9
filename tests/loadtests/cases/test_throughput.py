"""What is sent: the same prompts and lengths with a feature and without."""

import json
from typing import Any

import pytest

from loadtests.bench import ALSO, CASES, chosen_cases
from loadtests.cases.chats import SUBJECTS, TOPICS, with_control
from loadtests.cases.sweeps import (
    BOTH_AT,
    CONFIGURATIONS,
    CONTROL_AT,
    PLAIN_AT,
    STREAMS,
    SWEEPS,
    sweep_cases,
)
from loadtests.cases.throughput import WIDE, Case, Pair, throughput_cases
from loadtests.measure.client import Request
from loadtests.measure.memory import REPEATED_AFTER, short_request

TOKENS = 96
DEFAULT = throughput_cases(TOKENS)
SWEPT = sweep_cases(TOKENS)
ALL = [*DEFAULT, *SWEPT]
WITH_VECTORS = sorted(case.name for case in ALL if case.names_vectors)
# A pair with few rounds is too slow to generate as many tokens.
PAIRS = [p for c in ALL for p in (c.ours, c.stock) if p is not None and not p.max_rounds]
FEATURES = {"distribution", "logprobs", "top_logprobs", "logit_control"}


def case(name: str) -> Case:
    return next(case for case in ALL if case.name == name)


def without_features(request: Request) -> dict[str, Any]:
    return {k: v for k, v in request.payload.items() if k not in FEATURES}


@pytest.mark.parametrize("pair", PAIRS)
def test_feature_and_baseline_differ_in_nothing_but_the_feature(pair: Pair) -> None:
    feature = [without_features(request) for request in pair.feature.requests]
    baseline = [without_features(request) for request in pair.baseline.requests]
    assert feature == baseline


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_request_generates_a_fixed_number_of_tokens_the_same_each_time(case: Case) -> None:
    for request in (*case.ours.feature.requests, *case.ours.baseline.requests):
        assert request.payload["ignore_eos"] is True
        assert request.payload["temperature"] == 0
        assert request.payload["stream_options"] == {"include_usage": True}
        assert 2 <= request.tokens <= TOKENS


def test_a_feature_is_recognised_in_the_answer() -> None:
    for case in ALL:
        for request in case.ours.feature.requests:
            assert bool(request.marker) == ("distribution" in request.payload)


def test_every_case_can_be_named_once() -> None:
    assert len(set(CASES)) == len(CASES) == len(DEFAULT) + 2
    names = (*CASES, *ALSO)
    assert len(set(names)) == len(names) == len(ALL) + 2 + len(SWEEPS)


def test_a_sweep_is_chosen_by_its_name_and_not_by_default() -> None:
    assert [case.name for case in chosen_cases(CASES, TOKENS)] == [case.name for case in DEFAULT]
    for name, cases in SWEEPS.items():
        assert sorted(case.name for case in chosen_cases([name], TOKENS)) == sorted(cases)
    assert [case.name for case in chosen_cases(["plain-4", "plain"], TOKENS)] == [
        "plain",
        "plain-4",
    ]


def test_a_sweep_grows_in_requests_and_in_nothing_else() -> None:
    for names, sizes in ((PLAIN_AT, STREAMS), (BOTH_AT, STREAMS), (CONTROL_AT, CONFIGURATIONS)):
        pairs = [case(name).ours for name in names.values()]
        assert [len(pair.feature.requests) for pair in pairs] == list(sizes)
        assert {request.tokens for pair in pairs for request in pair.feature.requests} == {48}
    assert {case(name).ours.baseline.server for name in PLAIN_AT.values()} == {"stock"}
    assert {case(name).ours.baseline.server for name in BOTH_AT.values()} == {"sensefield"}


def test_every_control_of_a_batch_is_different() -> None:
    requests = with_control(TOKENS, max(WIDE))
    controls = [json.dumps(request.payload["logit_control"]) for request in requests]
    assert len(set(controls)) == len(set(SUBJECTS)) == max(WIDE)
    assert len(set(TOPICS)) == min(WIDE)
    for request in requests:
        assert request.payload["logit_control"].keys() == {"bias", "suppress", "steer"}


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_no_two_requests_of_a_batch_steer_alike(name: str) -> None:
    requests = case(name).ours.feature.requests
    steering = [json.dumps(request.payload["logit_control"]["steer"]) for request in requests]
    assert len(set(steering)) == len(steering)


def test_residual_cases_steer_at_one_layer_and_at_all() -> None:
    layers = {
        name: {
            str(entry.get("layers"))
            for request in case(name).ours.feature.requests
            for entry in request.payload["logit_control"]["steer"]
        }
        for name in ("residual-one", "residual-all", "residual-64", "residual-256")
    }
    assert layers.pop("residual-one") == {"[1]"}
    assert set.union(*layers.values()) == {"None"}


def test_a_vector_that_several_requests_share_has_another_strength_for_each() -> None:
    entries = [
        request.payload["logit_control"]["steer"][0]
        for request in case("residual-256").ours.feature.requests
    ]
    assert len({entry["vector"] for entry in entries}) == 64
    assert len({entry["strength"] for entry in entries}) == 256


def test_cases_that_name_vectors_are_known() -> None:
    residual = ("residual-one", "residual-all", "residual-64", "residual-256")
    assert sorted([*CONTROL_AT.values(), *residual]) == WITH_VECTORS


def test_one_neighbour_asks_for_more() -> None:
    widths = [r.payload["distribution"]["top_k"] for r in case("neighbour").ours.feature.requests]
    assert widths == [1000, *[5] * 7]


def test_short_requests_are_of_all_kinds() -> None:
    kinds = [short_request(number).payload for number in range(8)]
    assert len({json.dumps(sorted(kind.keys())) for kind in kinds}) == 4
    assert [kind["distribution"] for kind in kinds if "distribution" in kind] == [
        {"top_k": 20, "stages": ["base", "controlled"]},
        {"top_k": 100, "encoding": "json"},
        {"top_k": "all", "dtype": "float16"},
        {"top_k": 1000, "top_p": 0.9},
    ]


def test_short_requests_repeat() -> None:
    assert short_request(REPEATED_AFTER + 7) == short_request(7)
    texts = [
        short_request(number).payload["logit_control"]["suppress"][0]["text"]
        for number in range(7, REPEATED_AFTER, 8)
    ]
    assert len(set(texts)) == len(texts)
