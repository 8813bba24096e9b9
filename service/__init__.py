"""The Sensefield service: an OpenAI-compatible HTTP server around a stock vLLM engine."""

from importlib.metadata import version

__version__ = version("sensefield")
