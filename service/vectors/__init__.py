"""Steering vectors: their format, the store that keeps them, the registry that serves them."""
