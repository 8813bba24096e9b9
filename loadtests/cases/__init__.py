"""The cases of benchmarks: their requests, their baselines, and the goals."""
