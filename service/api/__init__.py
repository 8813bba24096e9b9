"""Thin routes: parse, plan, hand to vLLM's serving classes, put rows into the answer."""
