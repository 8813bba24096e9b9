"""Goals, ratios and what is made of a case's rounds."""

import json

import pytest

from loadtests.measure.client import Run
from loadtests.measure.results import MICROSECONDS, SECONDS, Goal, Result, at_least, at_most
from loadtests.measure.rounds import Round, ratios


def run(tokens: int, seconds: float) -> Run:
    return Run(tokens, seconds, received_bytes=0, client_seconds=0.0)


def test_a_run_is_described_by_percentiles_and_rates() -> None:
    done = Run(
        tokens=4,
        seconds=2.0,
        received_bytes=1000,
        client_seconds=0.5,
        ttfts=[0.1, 0.3],
        itls=[0.01] * 99 + [0.05],
        resident_bytes={"API server": 7},
        processor_seconds={"Worker": 1.5},
    )
    described = done.describe()
    assert described["tokens_per_second"] == 2
    assert described["bytes_per_token"] == 250
    assert described["ttft_p50_seconds"] == pytest.approx(0.2)
    assert described["itl_p50_seconds"] == pytest.approx(0.01)
    # Rank 0.99 * 99 = 98.01 between the 99th and the 100th value: a hundredth of the way.
    assert described["itl_p99_seconds"] == pytest.approx(0.0104)
    assert described["resident_bytes"] == {"API server": 7}
    assert described["processor_seconds"] == {"Worker": 1.5}


def test_a_run_of_single_tokens_has_no_times_between_them() -> None:
    described = run(tokens=1, seconds=1.0).describe()
    assert described["itl_p50_seconds"] is None
    assert json.loads(json.dumps(described)) == described


def test_a_ratio_is_of_throughputs_and_not_of_times() -> None:
    done = Round(feature=run(tokens=90, seconds=1.0), baseline=run(tokens=200, seconds=2.0))
    assert done.ratio == pytest.approx(0.9)


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that slows down between rounds changes no ratio."""
    rounds = [Round(run(95, s), run(100, s)) for s in (1.0, 2.0, 4.0)]
    assert ratios(rounds) == pytest.approx([0.95, 0.95, 0.95])


def test_a_described_round_holds_both_runs() -> None:
    described = Round(run(90, 1.0), run(100, 1.0)).describe()
    assert described["ratio"] == pytest.approx(0.9)
    assert described["feature"]["tokens_per_second"] == 90
    assert described["baseline"]["tokens"] == 100


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (at_least(0.95), 0.95, True),
        (at_least(0.95), 0.949, False),
        (at_most(5, MICROSECONDS), 5.0, True),
        (at_most(5, MICROSECONDS), 5.1, False),
    ],
)
def test_a_goal_is_met_on_its_side_and_on_the_limit(goal: Goal, value: float, met: bool) -> None:
    assert goal.is_met(value) is met


def test_goals_and_values_show_their_units() -> None:
    assert str(at_least(1.0)) == "≥ 1"
    assert at_least(1.0).show(0.9684) == "0.968"
    assert str(at_most(200.0, MICROSECONDS)) == "≤ 200 us"
    assert at_most(5, MICROSECONDS).show(4.26) == "4.3 us"
    assert at_most(0.1, SECONDS).show(25.5491) == "25.549 s"


def test_a_result_is_judged_by_its_median() -> None:
    result = Result("case", "a case", at_least(0.95), [0.5, 0.96, 0.97], [0.2, 0.4])
    assert result.median == 0.96
    assert result.is_met
    assert result.spread == (0.5, 0.97)
    assert result.stock_median == pytest.approx(0.3)


def test_without_stock_values_there_is_no_stock_median() -> None:
    assert Result("case", "a case", at_least(0.95), [0.5]).stock_median is None
