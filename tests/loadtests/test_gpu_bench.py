"""The benchmark on a GPU, as far as none is needed: planning, the deadline, the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from loadtests import gpu_bench
from loadtests.cases.gpu_models import Model, models_in
from loadtests.gpu_bench import ENGINE_FLAGS, ORDER, Step, measure_kernels, plan, take_steps
from loadtests.measure import servers
from loadtests.measure.client import RequestError
from loadtests.measure.deadline import Deadline
from loadtests.measure.results import Result, at_least
from loadtests.report.gpu_page import Outcome, cases_table, gpu_json, gpu_markdown
from tests.loadtests.pages import MACHINE, cells

SMALL, LARGE = Model("small", "folder", dummy=False), Model("large", "folder", dummy=True)
SETTINGS = {"command": "python -m loadtests.gpu_bench", "rounds": 2, "engine_flags": "--some"}
GPU = MACHINE | {"accelerators": ["NVIDIA H100 80GB HBM3"]}


def result(name: str, *ratios: float, **fields: Any) -> Result:
    return Result(name, f"the case {name}", at_least(0.95), ratios, **fields)


def test_a_deadline_is_shared_out_and_what_is_not_used_stays() -> None:
    now = [100.0]
    deadline = Deadline(90, lambda: now[0])
    first = deadline.share(3)
    assert first.left == 30
    now[0] += 10  # it ends early: two parts of the 80 s that are left
    assert deadline.share(2).left == 40
    now[0] += 200
    assert deadline.left == first.left == 0


def test_models_come_smallest_first_and_those_without_weights_are_made_up(tmp_path: Path) -> None:
    for name, layers, size in (("b", 36, 4096), ("a", 28, 1024), ("c", 30, 576)):
        (tmp_path / name).mkdir()
        config = {"num_hidden_layers": layers, "hidden_size": size}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "c" / "model.safetensors").touch()
    (tmp_path / "no model").mkdir()
    models = models_in(tmp_path)
    assert [(model.name, model.dummy) for model in models] == [
        ("c", False),
        ("a", True),
        ("b", True),
    ]
    assert models[0].flags == ()
    assert models[1].flags == ("--load-format", "dummy")


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder in it holds a config\.json"):
        models_in(tmp_path)


def test_the_plan_holds_what_is_named_in_the_order_of_its_worth() -> None:
    assert tuple(plan(ORDER, 8, 1)) == ORDER
    assert list(plan(["control-1", "top20", "plain"], 8, 1)) == ["plain", "top20", "control-1"]


def test_vllm_knows_the_flags() -> None:
    from service.launch import parse

    args = parse(["model", "--load-format", "dummy", *ENGINE_FLAGS.split()])
    assert args.load_format == "dummy"
    assert args.kv_cache_memory_bytes == 8 << 30
    assert max(args.cudagraph_capture_sizes) == args.max_num_seqs == 256


async def test_a_case_that_fails_leaves_the_others() -> None:
    async def fail(*_: object) -> Result:
        raise RequestError("HTTP 500: a|b\nmore")

    async def succeed(*_: object) -> Result:
        return result("top20", 1.0)

    steps = {"plain": Step("a title", fail), "top20": Step("another", succeed)}
    outcome = Outcome(SMALL, {name: step.title for name, step in steps.items()})
    nobody: Any = None
    await take_steps(outcome, steps, nobody, {})
    assert list(outcome.results) == ["top20"]
    assert outcome.skipped == {"plain": "failed: HTTP 500: a/b"}


def test_the_table_names_the_gpu_and_says_what_was_skipped() -> None:
    planned = {name: f"the case {name}" for name in ("plain", "top20", "top1000")}
    small = Outcome(SMALL, planned, {"plain": result("plain", 0.9, 1.0)}, reason="out of time")
    small.failures["top20"] = "failed: HTTP 500"
    large = Outcome(LARGE, planned, reason="failed: the sensefield server ended at start:")
    small.results["top1000"] = result("top1000", 0.97, stock=[0.3])
    lines = cases_table([small, large], "NVIDIA H100").splitlines()
    assert [cells(line) for line in lines if "---" not in line] == [
        ["case, on NVIDIA H100", "goal", "small", "large, dummy weights"],
        ["the case plain", "≥ 0.95", "0.950 (0.900 to 1.000)", f"skipped: {large.reason}"],
        ["the case top20", "", "failed: HTTP 500", f"skipped: {large.reason}"],
        [
            *("the case top1000", "≥ 0.95", "0.970 (0.970 to 0.970), stock 0.300"),
            f"skipped: {large.reason}",
        ],
    ]
    page = gpu_markdown([small, large], "kernels took", SETTINGS, GPU)
    assert page.startswith("small and large on 2 cores of Some CPU, NVIDIA H100 80GB HBM3")
    assert "```text\nkernels took\n```" in page
    assert page.endswith(cases_table([small, large], "NVIDIA H100 80GB HBM3"))
    content = json.loads(gpu_json([small, large], "kernels took", SETTINGS, GPU))
    assert [model["skipped"] for model in content["models"]] == [small.skipped, large.skipped]
    assert content["models"][0]["results"][0]["median"] == pytest.approx(0.95)


async def test_the_deadline_cuts_a_run_off_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server, of a model with no weights, that gets too little time to start."""
    monkeypatch.setattr(servers, "SCRATCH", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    steps = plan(["plain"], 2, 1)
    model = Model("tiny", str(tmp_path), dummy=True)
    outcome = await gpu_bench._measure(model, (), steps, Deadline(0.5))
    assert outcome.cell("plain") == "skipped: out of time"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_the_page_says_that_the_kernels_were_not_measured() -> None:
    assert measure_kernels(60).startswith("skipped: No GPU is here")


def test_kernels_that_take_too_long_are_skipped() -> None:
    assert measure_kernels(0.01) == "skipped: not done within 0 s"
