"""Engines without a server, in a process of their own: takes jobs, prints what came out.

One engine after another, each for one job. The jobs are JSON: ``engine`` are vLLM's
arguments, ``calls`` is a list of

- ``["put", name, layers]``: keep :func:`vector` at these layers,
- ``["generate", requests]``: each with ``prompt`` (token ids), ``tokens`` and ``wire``, what
  goes into ``extra_args``; answers token ids, their logprobs and whether each row is alive,
- ``["direct", name, token]``: keep a token's direction in the unembedding, and under
  ``name residual`` the same of the residual stream; answers why not, of each worker that has
  logits and both,
- ``["read", name]``: keep :func:`off_centre` for steering logits, as a vector of the residual
  stream; answers why not, of each worker that has logits,
- ``["lens", name, count]``: read so many states :func:`off_centre` through the lens,
- ``["rpc", method, *arguments]``: of every worker; bytes come back as lists of float32,
- ``["preemptions"]``: how many there have been.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logit_processors.row_spec import ALIVE
from service.embedded_model import embedded_model_dir

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_PLUGINS": "sensefield",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_MARK = "RESULT "


def vector(name: str, layers: Sequence[int], size: int = 576) -> NDArray[np.float32]:
    """Return the vector of a name, unit length at each layer: ``[len(layers), size]``."""
    rows = []
    for layer in layers:
        row = np.random.default_rng([*name.encode(), layer]).standard_normal(size)
        rows.append(row / np.linalg.norm(row))
    return np.array(rows, np.float32)


def off_centre(name: str, count: int, size: int) -> NDArray[np.float32]:
    """Return vectors of a name whose means are not near 0: ``[count, size]``."""
    return vector(name, range(count), size) + np.float32(0.5)


def run_offline(
    calls: Sequence[Sequence[Any]],
    engine: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """Run a job in a process of its own and return the answers of its calls."""
    (answers,) = run_offline_jobs([(calls, engine)], environment)
    return answers


def run_offline_jobs(
    jobs: Sequence[tuple[Sequence[Sequence[Any]], Mapping[str, Any]]],
    environment: Mapping[str, str] | None = None,
) -> list[list[Any]]:
    """Run jobs, each calls and an engine, in a process that they share."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.offline"],
        input=json.dumps(
            [{"engine": dict(engine), "calls": list(calls)} for calls, engine in jobs]
        ),
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith(_MARK)]
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-6000:]
    answers: list[list[Any]] = json.loads(lines[-1].removeprefix(_MARK))
    return answers


def _main() -> None:
    print(_MARK + json.dumps([_run(job) for job in json.load(sys.stdin)]), flush=True)


def _run(job: dict[str, Any]) -> list[Any]:
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    defaults = {
        "model": str(embedded_model_dir()),
        "dtype": "float32",
        "max_model_len": 256,
        "max_num_seqs": 8,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "disable_log_stats": False,
        "logits_processors": ["logit_processors.processor:ControlProcessor"],
        "worker_cls": "service.engine.serving_worker.ServingWorker",
        "worker_extension_cls": "service.engine.worker.SensefieldWorker",
    }
    llm = LLM(**{**defaults, **job["engine"]})
    answers = [_answer(llm, *call) for call in job["calls"]]
    # Engines of one process share its table: the next one must not find these scores.
    for kind, *arguments in job["calls"]:
        if kind in ("direct", "read"):
            for key in (arguments[0], f"{arguments[0]} residual"):
                llm.collective_rpc("sensefield_drop_vector", args=(key, "test"))
    llm.llm_engine.engine_core.shutdown()
    del llm
    cleanup_dist_env_and_memory()
    return answers


def _answer(llm: Any, kind: str, *arguments: Any) -> Any:
    if kind in ("put", "read", "lens"):
        return _give(llm, kind, *arguments)
    if kind == "direct":
        return _direct(llm, *arguments)
    if kind == "generate":
        return _generate(llm, arguments[0])
    if kind == "preemptions":
        return next(m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions")
    assert kind == "rpc"
    return _plain(llm.collective_rpc(arguments[0], args=tuple(arguments[1:])))


def _give(llm: Any, kind: str, name: str, *arguments: Any) -> Any:
    size = llm.llm_engine.model_config.get_hidden_size()
    if kind == "put":
        (layers,) = arguments
        data = vector(name, layers, size).tobytes()
        return llm.collective_rpc("sensefield_put_residual", args=(name, data, layers, "test"))
    if kind == "read":
        data = off_centre(name, 1, size).tobytes()
        return _keep(llm, [(name, data, True)])
    (count,) = arguments
    data = off_centre(name, count, size).tobytes()
    return _plain(llm.collective_rpc("sensefield_read_stream", args=(data, [-1] * count, 1)))


def _direct(llm: Any, name: str, token: int) -> list[str | None]:
    while not all(llm.collective_rpc("sensefield_prepare_directions")):
        pass
    directions = llm.collective_rpc("sensefield_token_direction", args=([token],))
    data = next(each for each in directions if each is not None)
    return _keep(llm, [(name, data, False), (f"{name} residual", data, True)])


def _keep(llm: Any, vectors: list[tuple[str, bytes, bool]]) -> list[str | None]:
    answers = llm.collective_rpc("sensefield_put_vectors", args=(vectors, "test"))
    return [reason for reasons in answers if reasons is not None for reason in reasons]


def _generate(llm: Any, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from vllm import SamplingParams

    params = [
        SamplingParams(
            temperature=0,
            max_tokens=request["tokens"],
            ignore_eos=True,
            logprobs=0,
            extra_args={"sensefield": {"rows": {"base": True}, **request.get("wire", {})}},
        )
        for request in requests
    ]
    if llm.llm_engine.model_config.skip_tokenizer_init:
        for each in params:
            each.detokenize = False
    prompts = [{"prompt_token_ids": request["prompt"]} for request in requests]
    outputs = [each.outputs[0] for each in llm.generate(prompts, params, use_tqdm=False)]
    return [
        {
            "tokens": list(output.token_ids),
            "logprobs": [float(row.statistics[1]) for row in output.logprobs],
            "controlled": [float(row.statistics[2]) for row in output.logprobs],
            "alive": [bool(row.statistics[0] == ALIVE) for row in output.logprobs],
        }
        for output in outputs
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return np.frombuffer(value, np.float32).tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    _main()
