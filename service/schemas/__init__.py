"""Pydantic models of what goes over the wire. Import-light: no torch, no vLLM."""
