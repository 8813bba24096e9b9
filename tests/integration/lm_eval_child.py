"""lm-eval in a process of its own: scores a server and its own model, prints every answer.

``python -m tests.integration.lm_eval_child FOLDER URL``, with lm-eval in the folder.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from service.embedded_model import embedded_model_dir
from tests.integration.servers import MODEL, REPOSITORY

MARK = "RESULT "
TASKS = ("sensefield_completion", "sensefield_prose")
WINDOW = 64
"""Tokens that a model sees at once, so that a text of a hundred needs several looks."""


def main() -> None:
    """Score both."""
    # Only now: transformers would take what lm-eval needs for its own.
    folder, url = sys.argv[1:]
    sys.path.append(folder)
    import lm_eval
    from lm_eval.tasks import TaskManager

    model = str(embedded_model_dir())
    served = {
        **{"model": MODEL, "base_url": f"{url}/v1/completions", "num_concurrent": 4},
        **{"tokenizer": model, "tokenizer_backend": "huggingface"},
        "max_length": WINDOW + 2,  # of which it spends two on what it adds itself
    }
    own = {"pretrained": model, "dtype": "float32", "device": "cpu", "max_length": WINDOW}
    tasks = TaskManager(
        include_path=str(REPOSITORY / "tests/integration/lm_eval_tasks"), include_defaults=False
    )

    def score(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        found = lm_eval.simple_evaluate(
            model=kind,
            model_args=arguments,
            tasks=list(TASKS),
            task_manager=tasks,
            bootstrap_iters=0,
        )
        answers = {
            task: [sample["resps"] for sample in samples]
            for task, samples in found["samples"].items()
        }
        return {"scores": found["results"], "answers": answers}

    found = {"served": score("local-completions", served), "own": score("hf", own)}
    print(MARK + json.dumps(found, default=float))


if __name__ == "__main__":
    main()
