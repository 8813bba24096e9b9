"""Servers of several processes, whose spans are collected: API processes, ranks, engines.

Ranks and engines compute at the same time, for which two cores are few: ``--full`` tries those, and
``test_residual_families`` two ranks of a small model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch

from service.embedded_model import embedded_model_dir
from tests.integration.client import Client
from tests.integration.collector import Collector, collecting
from tests.integration.parallel.adapter import make_adapter, save
from tests.integration.servers import OwnServer, serving

FLAGS = ("--max-model-len", "512", "--max-num-seqs", "16", "--block-size", "32")


@dataclass(frozen=True)
class Several:
    """A server of several processes, and where its spans go."""

    server: OwnServer
    client: Client
    collector: Collector


@contextmanager
def several(folder: Path, flags: Sequence[str], model: Path | None = None) -> Iterator[Several]:
    """Serve from several processes."""
    with collecting() as collector:
        traces = ("--otlp-traces-endpoint", collector.endpoint)
        environment = collector.environment
        with serving(folder, (*FLAGS, *flags, *traces), environment, model) as server:
            client = Client(server)
            yield Several(server, client, collector)
            client.http.close()


@pytest.fixture(scope="package")
def two_apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """Two API processes of one engine, which has a LoRA adapter."""
    folder = tmp_path_factory.mktemp("apis")
    save(make_adapter(), folder / "tuned")
    lora = (
        *("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"tuned={folder / 'tuned'}"),
        # No slot stays empty: rows without an adapter must not find this one.
        *("--max-loras", "1"),
    )
    with several(folder, ("--api-server-count", "2", *lora)) as running:
        yield running


@pytest.fixture(scope="package")
def two_ranks(full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    if not full:
        pytest.skip("only with --full: two ranks wait for one another on cores that others use")
    folder = tmp_path_factory.mktemp("ranks")
    flags = ("--tensor-parallel-size", "2", "--api-server-count", "2")
    with several(folder, flags, divisible(folder / "model")) as running:
        yield running


@pytest.fixture(scope="package")
def two_engines(full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    if not full:
        pytest.skip("only with --full: two engines start for a minute")
    flags = ("--data-parallel-size", "2", "--api-server-count", "1")
    with several(tmp_path_factory.mktemp("engines"), flags) as running:
        yield running


def divisible(folder: Path) -> Path:
    """Save the embedded model with heads of zeros beside its 9, which two ranks cannot share.

    Four groups of three heads instead of three groups; the fourth adds nothing.
    """
    source = embedded_model_dir()
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    heads = {"num_attention_heads": 12, "num_key_value_heads": 4}
    (folder / "config.json").write_text(json.dumps(config | heads))
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).symlink_to(source / name)
    (folder / "chat_template.jinja").symlink_to(source / "chat_template.jinja")
    weights = safetensors.torch.load_file(source / "model.safetensors")
    for name, weight in weights.items():
        match name.split(".")[-2]:
            case "q_proj" | "k_proj" | "v_proj":
                weights[name] = torch.cat((weight, weight.new_zeros(len(weight) // 3, 576)))
            case "o_proj":
                weights[name] = torch.cat((weight, weight.new_zeros(576, 192)), dim=1)
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder
