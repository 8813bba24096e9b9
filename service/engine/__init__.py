"""The only room that touches vLLM's internals."""
