"""vLLM's request models with Sensefield's fields: what they refuse names its field."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.api.requests import TextRequest
from service.errors import BadRequestError
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest
from tests.service.planning.asking import new_planner
from tests.unit_support import FakeEngine, safetensors


async def test_an_echo_alone_has_the_row_of_the_token_that_is_generated(tmp_path: Path) -> None:
    planner = new_planner(tmp_path, FakeEngine())
    distribution = DistributionRequest(top_k=10)
    promised = []
    for fields in ({"max_tokens": 1}, {"max_tokens": 0, "echo": True}):
        request = TextRequest(prompt="Hi", distribution=distribution, **fields)
        plan = request.make_plan(planner, arrow=False)
        assert request.to_sampling_params(fields["max_tokens"], {}).max_tokens == 1
        promised.append(planner.budget.promised_bytes)
        plan.close()
    assert promised[0] == promised[1] > 0


@pytest.mark.parametrize("beams", [False, True])
async def test_beams_have_no_rows_of_the_prompt(tmp_path: Path, beams: bool) -> None:
    planner = new_planner(tmp_path, FakeEngine())
    request = TextRequest(prompt="Hi", prompt_logprobs=3, use_beam_search=beams)
    assert (request.make_plan(planner, arrow=False).prompt_spec is None) == beams


async def test_a_refusal_leaves_no_vector_leased(tmp_path: Path) -> None:
    engine = FakeEngine()
    planner = new_planner(tmp_path, engine)
    await planner.vectors.put("calm", safetensors(direction=[1, 2, 3, 4]))
    control = LogitControl.model_validate(
        {"suppress": [{"token_id": 3}], "steer": [{"vector": "calm", "strength": 1}]}
    )
    request = TextRequest(prompt="Hi", allowed_token_ids=[3], logit_control=control)
    with pytest.raises(BadRequestError) as refused:
        request.make_plan(planner, arrow=False)
    assert refused.value.param == "logit_control.suppress"
    await planner.vectors.delete("calm")
    assert engine.resident == set()
