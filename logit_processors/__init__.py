"""What happens to a row of logits between the model and the sampler.

Pure ``apply_*`` functions over ``[rows, vocab]`` tensors, the control program they
execute, and the thin adapters that vLLM's two model runners call. Knows nothing of
HTTP or disk.
"""
