"""The keys of a request's control in vLLM's ``SamplingParams``, and its size limit."""

from __future__ import annotations

PROCESSOR = "logit_processors.processor:ControlProcessor"
"""The logits processor that vLLM loads."""
WIRE_KEY = "sensefield"
"""Key in ``extra_args``."""
PATTERNS_KEY = "patterns"
"""The program's compiled text patterns, beside it."""
MAX_ENTRIES = 1024
"""Entries in one program, all kinds together."""
