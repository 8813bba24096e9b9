"""What users send."""

import json
from collections.abc import Mapping
from typing import Any

from loadtests.load.kinds import ARROW, GROUPS, KINDS, VECTORS, make_vectors
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest

TAGS = (
    *("plain", "biased", "suppressed", "steered", "top-20", "top-1000", "all", "mixed"),
    *("arrow", "arrow-20", "arrow-1000", "arrow-all"),
)


def test_every_kind_has_a_name_of_its_own_and_a_group() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert {kind.group for kind in KINDS} == set(GROUPS)
    chosen = {name: {kind.name for kind in KINDS if name in kind.tags} for name in TAGS}
    arrow = {kind.name for kind in KINDS if kind.headers.get("accept") == ARROW}
    assert chosen["arrow"] == arrow == {"arrow-20", "arrow-1000", "arrow-all"}
    assert chosen["steered"] == {"steered-logits", "steered-residual"}
    assert all(chosen.values())


def test_every_body_is_one_that_the_server_reads() -> None:
    for kind in KINDS:
        body = json.loads(kind.body("a-model", 70, 8))
        assert (body["model"], body["max_tokens"], body["stream"]) == ("a-model", 8, True)
        LogitControl.model_validate(body.get("logit_control", {}))
        if kind.group == "distribution":
            DistributionRequest.model_validate(body["distribution"])
        else:
            assert "distribution" not in body


def test_every_vector_that_is_named_is_made() -> None:
    made: list[Mapping[str, Any]] = []
    make_vectors(made.append)
    steering = [kind.fields.get("logit_control", {}).get("steer", []) for kind in KINDS]
    named = {entry["vector"] for entries in steering for entry in entries}
    assert named == set(VECTORS) == {body["name"] for body in made}
