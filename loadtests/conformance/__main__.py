"""The command; see the package."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import vllm

from loadtests.conformance import plugin
from loadtests.conformance.archive import ArchiveError, find_sdist, unpack_tests
from loadtests.conformance.compare import Results, judged, known_differences, read_results
from loadtests.measure.servers import ROOT, SCRATCH, SENSEFIELD, STOCK, ServerError, running
from loadtests.measure.signals import cancel_on_signals
from service.embedded_model import embedded_model_dir

TESTS = "tests/entrypoints/openai"
FILES = (
    *("test_chunked_prompt.py", "test_return_token_ids.py", "test_return_tokens_as_ids.py"),
    *("chat_completion/test_batched_chat_completions.py", "chat_completion/test_chat.py"),
    *("chat_completion/test_chat_completion.py", "chat_completion/test_chat_echo.py"),
    "chat_completion/test_chat_logit_bias_validation.py",
    "chat_completion/test_completion_with_function_calling.py",
    "chat_completion/test_enable_force_include_usage.py",
    *("chat_completion/test_logprob_token_ids.py", "completion/test_completion.py"),
    *("completion/test_prompt_validation.py", "models/test_models.py"),
    *("responses/test_basic.py", "responses/test_errors.py", "responses/test_function_call.py"),
    *("responses/test_sampling_params.py", "responses/test_simple.py"),
    *("responses/test_stateful.py", "responses/test_structured_output.py"),
)
"""Those of its files whose tests need a server and nothing else."""
_MODEL_NAMES = re.compile(r'["\']([\w.-]+/[\w.-]+)["\']')
_RAN = (0, 1)
"""Statuses of pytest: all tests passed, or some failed."""
_OTHER_NAMES = ("zephyr-lora",)
_AT_ONCE = 6
"""Processes that run the tests: many wait for a whole context of tokens, which batch well."""
FLAGS = (
    *("--enforce-eager", "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "16"),
    *("--enable-prompt-tokens-details", "--no-enable-prefix-caching"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
"""Flags of both servers, in place of the tests' own: a short context, because many of the tests
generate until it is full."""


def fetched_tests() -> Path:
    """Return the folder with the tests of the installed vLLM, fetched at most once.

    Raises:
        ArchiveError: they cannot be had.

    """
    version = vllm.__version__.partition("+")[0]
    folder = SCRATCH / f"vllm-{version}"
    if not folder.exists():
        unfinished = folder.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unpack_tests(find_sdist("vllm", version), "tests/", unfinished)
        # Its own needs packages that these tests do not.
        (unfinished / "tests" / "conftest.py").unlink()
        unfinished.rename(folder)
    return folder


def _names(folder: Path) -> list[str]:
    """Return the names of models that the tests ask for."""
    found = set(_OTHER_NAMES)
    for file in FILES:
        found |= set(_MODEL_NAMES.findall((folder / TESTS / file).read_text()))
    return sorted(found)


async def results_of(server: str, folder: Path, more: Sequence[str]) -> Results:
    """Run the tests against one server and return what became of each."""
    cancel_on_signals()
    results = SCRATCH / f"conformance-{server}.jsonl"
    results.unlink(missing_ok=True)
    model = str(embedded_model_dir())
    flags = (*FLAGS, "--served-model-name", *_names(folder))
    async with running([server], model, flags, settle=False) as servers:
        environment = {
            **os.environ,
            **{plugin.URL: servers[server].url, plugin.MODEL: model, plugin.RESULTS: str(results)},
            **{"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": "none"},
        }
        command = [sys.executable, "-m", "pytest", "-p", plugin.__name__, "-q"]
        command += ["--numprocesses", str(_AT_ONCE)]
        command += ["--no-header", "--tb=no", "--disable-warnings"]
        command += ["-o", "asyncio_default_fixture_loop_scope=function"]
        command += ["-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider"]
        command += [*(f"{TESTS}/{file}" for file in FILES), *more]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment)
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
        if status not in _RAN:
            raise ArchiveError(f"pytest ended with {status}; allowed: {_RAN}")
    return read_results(results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests against both servers; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.conformance", description=__doc__)
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    more = parser.parse_args(arguments).pytest
    try:
        folder = fetched_tests()
        stock = asyncio.run(results_of(STOCK, folder, more))
        sensefield = asyncio.run(results_of(SENSEFIELD, folder, more))
    except (ArchiveError, ServerError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("conformance: interrupted; the servers are stopped", file=sys.stderr)
        return 130
    text, agreed = judged(stock, sensefield, known_differences())
    print(text)
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
