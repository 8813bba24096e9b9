"""Benchmarks of Sensefield against stock vLLM, over HTTP on one machine."""
