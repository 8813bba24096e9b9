"""Starts that would leave the door out: each is refused in one line, before vLLM is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig
from vllm.config import ModelConfig, VllmConfig
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

from service import launch
from service.engine.front_ends import FLAGS, refuse_variables
from service.engine.servable import assert_servable
from service.errors import StartupError

WITH_VALUE = {"--grpc-port": "8001"}


def given(flag: str) -> list[str]:
    return [flag, WITH_VALUE[flag]] if flag in WITH_VALUE else [flag]


@pytest.mark.parametrize("flag", FLAGS)
def test_vllm_still_has_the_flag(flag: str) -> None:
    parser = FlexibleArgumentParser()
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    args = parser.parse_args(["serve", "m", *given(flag)])
    assert getattr(args, flag[2:].replace("-", "_")) not in (None, False)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_is_refused_wherever_it_comes_from(flag: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=f"^{flag}: .+$"):
        launch.parse(["m", *given(flag)])
    file = tmp_path / "flags.yaml"
    file.write_text(f"{flag[2:]}: {WITH_VALUE.get(flag, 'true')}\n")
    with pytest.raises(StartupError, match=f"^{flag}: "):
        launch.parse(["m", "--config", str(file)])


@pytest.mark.parametrize(
    "environment",
    [
        {"VLLM_USE_RUST_FRONTEND": "1"},
        {"VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "True"},
        {"CUSTOM_FASTAPI_PING_HANDLER": "mine.py:ping"},
        {"CUSTOM_FASTAPI_INVOCATION_HANDLER": "mine.py:answer"},
        {"CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE": "mine.py:throttle"},
        {"CUSTOM_FASTAPI_MIDDLEWARE_PRE_POST_PROCESS": "mine.py:both"},
        {"CUSTOM_PRE_PROCESS": "mine.py:before"},
        {"CUSTOM_POST_PROCESS": "mine.py:after"},
    ],
)
def test_a_variable_is_refused(environment: dict[str, str]) -> None:
    ((name, value),) = environment.items()
    with pytest.raises(StartupError, match=f"^{name}={value}: .+$"):
        refuse_variables(environment)


@pytest.mark.parametrize("value", ["", "0", "False", "false"])
def test_a_switch_that_is_off_is_none(value: str) -> None:
    refuse_variables({"VLLM_USE_RUST_FRONTEND": value, "CUSTOM_PRE_PROCESS": ""})


def test_the_variables_are_those_that_are_read() -> None:
    from model_hosting_container_standards.common.fastapi.config import FastAPIEnvVars
    from model_hosting_container_standards.sagemaker.config import (
        SageMakerDefaults,
        SageMakerEnvVars,
    )
    from vllm import envs

    from service.engine.front_ends import _HOOKS, _SWITCHES

    read = {value for name, value in vars(FastAPIEnvVars).items() if name.startswith("CUSTOM_")}
    assert set(_HOOKS) == read
    assert set(_SWITCHES) <= envs.environment_variables.keys()
    assert SageMakerEnvVars.SAGEMAKER_MODEL_PATH == "SAGEMAKER_MODEL_PATH"
    assert SageMakerEnvVars.CUSTOM_SCRIPT_FILENAME == "CUSTOM_SCRIPT_FILENAME"
    defaults = SageMakerDefaults.SCRIPT_PATH, SageMakerDefaults.SCRIPT_FILENAME
    assert defaults == ("/opt/ml/model/", "model.py")


def test_a_script_that_sagemaker_would_run_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    environment = {"SAGEMAKER_MODEL_PATH": str(tmp_path), "CUSTOM_SCRIPT_FILENAME": "mine.py"}
    refuse_variables(environment)
    script.touch()
    with pytest.raises(StartupError, match=f"^{script}: .+$"):
        refuse_variables(environment)


@pytest.mark.parametrize(("runner", "served"), [("generate", True), ("pooling", False)])
def test_a_model_that_generates_no_text_is_refused(
    runner: str, served: bool, tmp_path: Path
) -> None:
    """vLLM would serve it with all of its own routes, and none of ours."""
    LlamaConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocab_size=16,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)
    model = ModelConfig(model=str(tmp_path), runner=runner, skip_tokenizer_init=True)
    config = VllmConfig(model_config=model)
    if served:
        assert_servable(config)
        return
    with pytest.raises(StartupError, match=r"^--runner pooling: "):
        assert_servable(config)


@pytest.mark.parametrize(
    ("flags", "environment", "line"),
    [
        (["--grpc"], {}, "sensefield: --grpc: "),
        ([], {"VLLM_USE_RUST_FRONTEND": "1"}, "sensefield: VLLM_USE_RUST_FRONTEND=1: "),
    ],
)
def test_a_refusal_is_one_line_and_waits_for_no_import(
    flags: list[str], environment: dict[str, str], line: str
) -> None:
    script = (
        "import os, sys; from service.cli import main; "
        f"os.environ.update({environment!r}); sys.modules['torch'] = None; "
        f"sys.exit(main(['serve', 'm', *{flags!r}]))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
