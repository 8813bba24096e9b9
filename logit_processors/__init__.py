"""Control and measurement of rows of logits between the model and the sampler.

Pure ``apply_*`` functions over ``[rows, vocab]`` tensors, the control program that they execute,
and the thin adapters that vLLM's two model runners call. Independent of HTTP and disk.
"""
