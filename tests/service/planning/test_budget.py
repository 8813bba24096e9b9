"""The budget never promises more than it has, whatever comes and goes in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from service.errors import BadRequestError, SaturatedError
from service.planning.budget import Budget, Claim

REQUEST_BYTES, TOTAL_BYTES = 60, 100


def test_a_request_beyond_its_own_limit_is_refused_for_good() -> None:
    budget = Budget(REQUEST_BYTES, TOTAL_BYTES)
    with pytest.raises(BadRequestError) as caught:
        budget.claim(61, "distribution")
    assert caught.value.param == "distribution"
    assert caught.value.code == "distribution_too_large"
    for word in ("distribution", "61 bytes", "allowed: 60 bytes", "max_tokens", "top_k"):
        assert word in caught.value.message
    assert budget.promised_bytes == 0


def test_what_a_request_holds_counts_towards_its_limit() -> None:
    budget = Budget(REQUEST_BYTES, TOTAL_BYTES)
    with pytest.raises(BadRequestError, match="61 bytes"):
        budget.claim(41, "distribution", held=20)
    budget.claim(40, "distribution", held=20)
    assert budget.promised_bytes == 40


def test_a_request_beyond_all_that_there_is_is_refused_for_good() -> None:
    with pytest.raises(BadRequestError, match="allowed: 100 bytes"):
        Budget(1000, TOTAL_BYTES).claim(101, "distribution")


def test_a_request_that_does_not_fit_now_is_asked_to_come_back() -> None:
    budget = Budget(REQUEST_BYTES, TOTAL_BYTES)
    first = budget.claim(60, "distribution")
    with pytest.raises(SaturatedError) as caught:
        budget.claim(41, "top_logprobs")
    assert caught.value.param == "top_logprobs"
    assert caught.value.retry_after
    for word in ("top_logprobs", "41 bytes", "40 are left", "try again"):
        assert word in caught.value.message
    first.release()
    budget.claim(41, "top_logprobs")
    assert budget.promised_bytes == 41


def test_limits_themselves_can_be_claimed() -> None:
    budget = Budget(REQUEST_BYTES, TOTAL_BYTES)
    budget.claim(60, "distribution")
    budget.claim(40, "distribution")
    budget.claim(0, "distribution")
    assert budget.promised_bytes == TOTAL_BYTES


class BudgetMachine(RuleBasedStateMachine):
    """Claims and releases against a list of what is out."""

    claims: Bundle[Claim] = Bundle("claims")
    released: Bundle[Claim] = Bundle("released")

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(REQUEST_BYTES, TOTAL_BYTES)
        self.out: dict[int, int] = {}

    @rule(target=claims, size=st.integers(0, 80))
    def claim(self, size: int) -> Claim | MultipleResults[Claim]:
        left = TOTAL_BYTES - sum(self.out.values())
        refusal = BadRequestError if size > REQUEST_BYTES else SaturatedError
        if size > min(left, REQUEST_BYTES):
            with pytest.raises(refusal):
                self.budget.claim(size, "distribution")
            return multiple()
        claim = self.budget.claim(size, "distribution")
        self.out[id(claim)] = size
        return claim

    @rule(target=released, claim=consumes(claims))
    def release(self, claim: Claim) -> Claim:
        claim.release()
        del self.out[id(claim)]
        return claim

    @rule(claim=released)
    def release_again(self, claim: Claim) -> None:
        claim.release()

    @invariant()
    def promises_are_what_is_out(self) -> None:
        assert self.budget.promised_bytes == sum(self.out.values())
        assert 0 <= self.budget.promised_bytes <= TOTAL_BYTES


BudgetMachine.TestCase.settings = settings(max_examples=200)
TestBudget = BudgetMachine.TestCase
