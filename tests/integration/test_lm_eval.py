"""lm-evaluation-harness scores the server as it scores the model in transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.client import Client
from tests.integration.lm_eval_child import MARK, TASKS
from tests.integration.servers import REPOSITORY

LM_EVAL = Path(sys.prefix) / "lm-eval"
"""Where ``make`` installs lm-eval, apart, because it asks for packages that have no wheels."""


@pytest.mark.usefixtures("only_full")
def test_both_backends_give_the_same_scores(v1: Client, tmp_path: Path) -> None:
    assert LM_EVAL.is_dir(), f"{LM_EVAL} is missing: run the tests with `make test`"
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.lm_eval_child", str(LM_EVAL), v1.server.url],
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    found = json.loads(process.stdout.split(MARK)[-1])
    served, own = found["served"], found["own"]
    for task in TASKS:
        expected = pytest.approx(numbers(own["scores"][task]), rel=1e-3)
        assert numbers(served["scores"][task]) == expected
        check_answers(served["answers"][task], own["answers"][task])
    scores = served["scores"]["sensefield_completion"]
    assert 0 < scores["acc_norm,none"] < scores["acc,none"] < 1, "the task could not tell"


def numbers(scores: dict[str, Any]) -> dict[str, float]:
    """Return what a task measured, without what it says besides."""
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def check_answers(served: list[Any], own: list[Any]) -> None:
    """Compare log-likelihoods, and of a choice whether it is what the model says itself."""
    assert len(served) == len(own)
    for ours, theirs in zip(served, own, strict=True):
        # The log-likelihood of a text is a sum over its tokens, and so is its error.
        assert np.ravel(ours) == pytest.approx(np.ravel(theirs), rel=1e-5, abs=2e-3)
