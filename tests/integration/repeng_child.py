"""repeng in a process of its own: takes a job on standard input, prints what came out.

The job is JSON: ``load`` (path), ``layers``, ``strength``, ``prompt`` and ``tokens`` continue
token ids greedily under a control vector, with the log-probability of each token. ``train`` (pairs
of texts) first makes that vector and writes it as GGUF.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.embedded_model import embedded_model_dir

# repeng 0.4.0 names this only in annotations; numpy 2 has it no more.
np.float_ = np.float64  # type: ignore[attr-defined]

MARK = "RESULT "


def main() -> None:
    """Do the job."""
    # Only now: transformers would take what repeng needs for its own.
    sys.path.append(sys.argv[1])
    from repeng import ControlModel, ControlVector, DatasetEntry

    job = json.load(sys.stdin)
    path = embedded_model_dir()
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    if "train" in job:
        tokenizer = AutoTokenizer.from_pretrained(path)
        pairs = [DatasetEntry(positive=a, negative=b) for a, b in job["train"]]
        ControlVector.train(model, tokenizer, pairs, batch_size=1).export_gguf(job["load"])
    vector = ControlVector.import_gguf(job["load"])
    controlled = ControlModel(model, job["layers"])
    controlled.set_control(vector, job["strength"])
    tokens, logprobs = list(job["prompt"]), []
    for _ in range(job["tokens"]):
        with torch.no_grad():
            row = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].log_softmax(-1)
        tokens.append(int(row.argmax()))
        logprobs.append(float(row.max()))
    new = tokens[len(job["prompt"]) :]
    print(MARK + json.dumps({"tokens": new, "logprobs": logprobs}))


if __name__ == "__main__":
    main()
