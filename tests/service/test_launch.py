"""From our command line to vLLM's: what is added, what is refused, which model is meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from vllm.config import ModelConfig, SpeculativeConfig, VllmConfig

from logit_processors.wire import PROCESSOR
from service import launch
from service.access.keys import Key, KeyRing
from service.access.roles import ROLES
from service.embedded_model import embedded_model_dir
from service.engine.servable import assert_servable
from service.errors import StartupError
from service.plugins import NAME
from service.settings import settings


@pytest.fixture(autouse=True)
def _a_machine_with_a_compiler_and_a_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(launch, "embedded_model_dir", lambda: Path("/embedded"))
    monkeypatch.setattr(launch, "_has_compiler", lambda: True)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    monkeypatch.delenv("SENSEFIELD_API_KEYS_FILE", raising=False)
    monkeypatch.setenv("SENSEFIELD_API_KEYS", "")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize(
    "flags", [["other"], ["other", "--port", "1"], ["--port", "1", "other"], ["--port=1", "other"]]
)
def test_a_named_model_is_served_wherever_it_stands(flags: list[str]) -> None:
    args = launch.parse(flags)
    assert args.model_tag == "other"
    assert args.served_model_name is None
    assert not args.enforce_eager


@pytest.mark.parametrize("flags", [[], ["--port", "1"], ["--max-num-seqs", "3"]])
def test_without_a_model_the_embedded_one_is_served(flags: list[str]) -> None:
    args = launch.parse(flags)
    assert args.model_tag == "/embedded"
    assert args.served_model_name == [launch.EMBEDDED_NAME]
    assert (args.max_model_len, args.enforce_eager) == (2048, True)


def test_what_is_said_of_the_embedded_model_holds() -> None:
    args = launch.parse(["--max-model-len", "64", "--served-model-name=mine"])
    assert (args.max_model_len, args.served_model_name) == (64, ["mine"])


@pytest.mark.parametrize("theirs", [{}, {"temperature": 0.5}])
def test_a_cap_on_tokens_is_told_to_the_engine(
    theirs: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["m", "--override-generation-config", json.dumps(theirs)]
    assert launch.parse(flags).override_generation_config == theirs
    monkeypatch.setenv("SENSEFIELD_MAX_TOKENS", "50")
    settings.cache_clear()
    told = launch.parse(flags).override_generation_config
    assert told == theirs | {"max_new_tokens": 50}


@pytest.mark.parametrize("allowed", ["", "theirs", "theirs,sensefield"])
def test_an_allow_list_of_plugins_lets_ours_in_and_keeps_theirs(
    allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    launch.allow_plugins()
    assert set(os.environ["VLLM_PLUGINS"].split(",")) == {*allowed.split(","), NAME} - {""}


def test_without_a_list_every_plugin_stays_and_ours_must_be_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    group = "vllm.general_plugins"
    plugins = [EntryPoint("theirs", "theirs:install", group)]
    monkeypatch.setattr(launch, "entry_points", lambda group: plugins)
    with pytest.raises(StartupError, match="install it with pip"):
        launch.allow_plugins()
    plugins.append(EntryPoint(NAME, "ours:install", group))
    monkeypatch.delenv("VLLM_PLUGINS")
    launch.allow_plugins()
    assert os.environ["VLLM_PLUGINS"] == "sensefield,theirs"


def test_sensefield_is_plugged_in_beside_what_was_asked_for() -> None:
    args = launch.parse(["m", "--logits-processors", "theirs:Processor"])
    assert args.logits_processors == ["theirs:Processor", PROCESSOR]
    assert args.worker_cls == launch.WORKER
    assert args.worker_extension_cls == launch.WORKER_EXTENSION
    assert args.shutdown_timeout == launch.DRAIN_SECONDS
    assert launch.parse(["m", "--shutdown-timeout", "7"]).shutdown_timeout == 7


def test_without_a_compiler_the_engine_runs_eagerly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_has_compiler", lambda: False)
    assert launch.parse(["m"]).enforce_eager
    assert "no C++ compiler found" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--worker-cls", "their.Worker"],
        ["--worker-extension-cls", "their.Extension"],
        ["--logprobs-mode", "processed_logprobs"],
        ["--enable-batch-sharded-sampling"],
    ],
)
def test_flags_that_take_our_place_are_refused(flags: list[str]) -> None:
    with pytest.raises(StartupError, match=flags[0]):
        launch.parse(["m", *flags])


def test_the_door_is_outside_of_all_other_middleware() -> None:
    assert launch.parse(["m", "--middleware", "their.Middleware"]).middleware == [
        "their.Middleware",
        launch.DOOR,
    ]


@pytest.mark.parametrize("flags", [["--api-key", "one", "two"], []])
def test_keys_of_vllm_become_ours_in_every_role(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENSEFIELD_API_KEYS", Key.of("alice", ["inference"], "a").to_line())
    monkeypatch.setenv("VLLM_API_KEY", "three")
    args = launch.parse(["m", *flags])
    assert args.api_key is None
    assert "VLLM_API_KEY" not in os.environ
    ring = KeyRing.read(os.environ["SENSEFIELD_API_KEYS"], None)
    known = [secret for secret in ("one", "two", "three", "a") if ring.find(secret)]
    assert known == (["one", "two", "a"] if flags else ["three", "a"])
    key = ring.find(known[0])
    assert key is not None
    assert key.roles == set(ROLES)


@pytest.mark.parametrize(
    ("flags", "warns"),
    [
        ([], True),
        (["--host", "0.0.0.0"], True),
        (["--host", "127.0.0.1"], False),
        (["--uds", "socket"], False),
        (["--api-key", "one"], False),
    ],
)
def test_an_open_server_that_others_reach_is_told_of(
    flags: list[str], warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    launch.parse(["m", *flags])
    assert ("no API keys" in capsys.readouterr().err) is warns


def test_bad_keys_are_told_before_the_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSEFIELD_API_KEYS", "alice")
    with pytest.raises(StartupError, match="SENSEFIELD_API_KEYS, line 1"):
        launch.parse(["m"])


def servable_config() -> VllmConfig:
    """Return the configuration of an engine with a model that generates text."""
    return VllmConfig(model_config=ModelConfig(str(embedded_model_dir())))


@pytest.mark.parametrize(
    ("part", "name", "value", "flag"),
    [
        ("cache_config", "kv_sharing_fast_prefill", True, "--kv-sharing-fast-prefill"),
        (
            *("parallel_config", "prefill_context_parallel_size", 2),
            "--prefill-context-parallel-size",
        ),
    ],
)
def test_steps_in_which_tokens_have_other_places_are_refused(
    part: str, name: str, value: object, flag: str
) -> None:
    config = servable_config()
    assert_servable(config)
    assert hasattr(getattr(config, part), name)
    setattr(getattr(config, part), name, value)
    with pytest.raises(StartupError, match=flag):
        assert_servable(config)


@pytest.mark.parametrize(
    ("speculative", "v2", "served"),
    [(False, False, True), (False, True, True), (True, True, True), (True, False, False)],
)
def test_speculation_is_refused_on_the_runner_that_cannot(
    speculative: bool, v2: bool, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = servable_config()
    if speculative:
        config.speculative_config = SpeculativeConfig(method="ngram", num_speculative_tokens=2)
    monkeypatch.setattr(VllmConfig, "use_v2_model_runner", v2)
    if served:
        assert_servable(config)
        return
    with pytest.raises(StartupError, match="leave out --speculative-config"):
        assert_servable(config)


def test_a_server_without_our_routes_does_not_start() -> None:
    broken = "import sys; sys.modules['service.app'] = None"
    script = f"{broken}; from service.cli import main; sys.exit(main(['serve', 'model']))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "service.app" in done.stderr
