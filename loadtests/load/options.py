"""The options of a load test, for the command and for Locust, which it runs."""

from __future__ import annotations

from argparse import ArgumentParser

from loadtests.load.shapes import SHAPES


def add_load_options(parser: ArgumentParser) -> None:
    """Add the shape and size of the load, and the objectives it is judged by."""
    add = parser.add_argument
    add("--shape", choices=sorted(SHAPES), default="ramp", help="of the load; %(default)s")
    add("--peak", type=int, default=16, help="users at most; %(default)s")
    add("--seconds", type=float, default=120, help="of load, in all; %(default)s")
    add("--tokens", type=int, default=32, help="of an answer; %(default)s")
    add("--ttft-ms", type=float, default=1000, help="objective: p99; %(default)s")
    add("--itl-ms", type=float, default=250, help="objective: p99; %(default)s")
    add("--errors", type=float, default=0.01, help="objective: share; %(default)s")
