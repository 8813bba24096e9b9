"""Benchmarks of Sensefield, against stock vLLM where it can do the same, and load tests.

Each module here is a command; ``measure``, ``cases`` and ``report`` are what they are made of.
"""
