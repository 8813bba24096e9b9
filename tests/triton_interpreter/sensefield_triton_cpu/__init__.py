"""A Triton backend that says there is a device, so that its interpreter runs on a CPU.

vLLM imports Triton only if a backend is active; with ``TRITON_INTERPRET=1`` no kernel is
ever compiled, so answering the questions below is enough.
"""
