"""The kernels' own tests, run by Triton's interpreter where there is no GPU to run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from logit_processors.kernels import has_kernels, run_every_kernel, warm_up
from tests.integration.servers import REPOSITORY, V2_ENVIRONMENT
from tests.unit_support import CPU, KERNEL_DEVICE, pipeline_of

FILES = (
    "logit_processors/test_device_apply.py",
    "logit_processors/test_device_text.py",
    "logit_processors/test_kernels.py",
    "logit_processors/controls",
    "logit_processors/test_pipeline.py",
    "logit_processors/test_v2.py",
    "service/engine/test_capture.py",
    "service/engine/test_measured.py",
)


@pytest.mark.skipif(KERNEL_DEVICE is None, reason="no Triton here: a child runs this one")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kernel_runs_once(dtype: torch.dtype) -> None:
    assert KERNEL_DEVICE is not None
    run_every_kernel(2049, dtype, pipeline_of(1, device=KERNEL_DEVICE))


def test_nothing_is_compiled_for_a_cpu() -> None:
    warm_up(None, pipeline_of(1))  # asks nothing of the configuration


@pytest.mark.skipif(KERNEL_DEVICE is not None, reason="the kernels' tests ran themselves")
def test_the_kernels_pass_their_tests_under_tritons_interpreter() -> None:
    assert not has_kernels(CPU)
    files = [str(REPOSITORY / "tests" / file) for file in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    child = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **V2_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-4000:] + child.stderr[-2000:]


@pytest.mark.skipif(KERNEL_DEVICE is not None, reason="compiled by whoever runs them")
def test_the_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    environment = {**os.environ, **V2_ENVIRONMENT, "TRITON_CACHE_DIR": str(tmp_path)}
    del environment["TRITON_INTERPRET"]
    child = subprocess.run(
        [sys.executable, "-m", "tests.logit_processors.compile_kernels"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-2000:] + child.stderr[-4000:]
    assert child.stdout.count("_kernel") == 24
