"""The only package that touches vLLM's internals."""
