"""vLLM's own HTTP tests, against Sensefield and stock vLLM: `python -m loadtests.conformance`.

They come out of the source archive of the installed version, which the configured package index
has, and are not part of this repository. Both servers serve the same small model under all the
names that the tests use, so many of them fail on both; a test that passes on one alone is a
difference, and each must be explained in differences.toml.
"""
