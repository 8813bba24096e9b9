"""Locust's users: they stream one chat after another, of the kinds that `--tags` chooses.

Each answer is measured as Locust's events TTFT, ITL (both in ms) and tokens/s. At the end the
samples are written to `--samples`, and the exit code is 1 if an objective was missed.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from dataclasses import asdict
from itertools import count
from typing import Any

import requests
from locust import HttpUser, LoadTestShape, SequentialTaskSet, constant, events, tag

from loadtests.load.kinds import KINDS, Kind, make_vectors
from loadtests.load.objectives import Objectives, Sample
from loadtests.load.options import add_load_options
from loadtests.load.shapes import SHAPES
from loadtests.load.streams import Batches, Events, Stream
from loadtests.measure.client import RequestError
from loadtests.measure.latency import gaps

_samples: list[Sample] = []
_numbers, _users = count(), count()


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser) -> None:
    """Add a run's options beside Locust's own."""
    add_load_options(parser)
    parser.add_argument("--samples", default="", help="file for all samples, as JSON")


class Shape(LoadTestShape):
    """Follows the shape that is named."""

    def tick(self) -> tuple[int, float] | None:
        """Return users and how many may start in a second; None at the end."""
        options = self.runner.environment.parsed_options
        share = self.get_run_time() / options.seconds
        return None if share >= 1 else (SHAPES[options.shape](share, options.peak), options.peak)


@events.test_start.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Learn the model's name and have the vectors made."""

    def post(body: Any) -> None:
        requests.post(f"{environment.host}/v1/vectors", json=body, timeout=60).raise_for_status()

    answer = requests.get(f"{environment.host}/v1/models", timeout=60)
    answer.raise_for_status()
    environment.model = answer.json()["data"][0]["id"]
    make_vectors(post)


class Turns(SequentialTaskSet):
    """The chosen kinds in turn, from another one on for each user: equal shares of a mixture."""

    tasks = [  # noqa: RUF012 - Locust wants a list and filters it by tags
        tag(*kind.tags)(lambda turns, kind=kind: turns.user.ask(kind)) for kind in KINDS
    ]

    def on_start(self) -> None:
        """Skip what users before this one began with."""
        for _ in range(next(_users) % len(self.tasks)):
            self.get_next_task()


class SensefieldUser(HttpUser):
    """Asks again as soon as an answer has ended."""

    wait_time = constant(0)
    tasks = [Turns]  # noqa: RUF012 - as above

    def ask(self, kind: Kind) -> None:
        """Stream one chat and take its sample."""
        users, started = self.environment.runner.user_count, time.perf_counter()
        stream: Stream = Batches() if kind.arrow else Events()
        tokens = self.environment.parsed_options.tokens
        body = kind.body(self.environment.model, next(_numbers), tokens)
        times: list[float] = []
        with self.client.post(
            "/v1/chat/completions",
            data=body,
            headers=kind.headers,
            name=kind.name,
            stream=True,
            catch_response=True,
        ) as answer:
            try:
                answer.raise_for_status()
                for chunk in answer.iter_content(None):
                    stream.see(chunk)
                times = stream.tokens()
                error = "" if times else "no token came"
            except (requests.RequestException, RequestError) as failure:
                error = repr(failure)
            if error:
                answer.failure(error)
        seconds = time.perf_counter() - started
        steady = users if users == self.environment.runner.user_count else 0
        if error:
            _samples.append(Sample(kind.name, kind.group, steady, seconds, error=error))
            return
        ttft, itls = times[0] - started, gaps(times)
        _samples.append(Sample(kind.name, kind.group, steady, seconds, tokens, ttft, itls))
        self._fire("TTFT", kind, ttft * 1000)
        for itl in itls:
            self._fire("ITL", kind, itl * 1000)
        self._fire("tokens/s", kind, tokens / seconds)

    def _fire(self, measure: str, kind: Kind, value: float) -> None:
        self.environment.events.request.fire(
            request_type=measure,
            name=kind.name,
            response_time=value,
            response_length=0,
            exception=None,
            context={},
        )


@events.quitting.add_listener
def conclude(environment: Any, **_: Any) -> None:
    """Write the samples, say which objectives were missed, and set the exit code."""
    options = environment.parsed_options
    if options.samples:
        with open(options.samples, "w") as file:
            json.dump([asdict(sample) for sample in _samples], file)
    objectives = Objectives(options.ttft_ms / 1000, options.itl_ms / 1000, options.errors)
    missed = objectives.missed(_samples)
    print("objectives " + ("missed: " + ", ".join(missed) if missed else "met"), flush=True)
    environment.process_exit_code = 1 if missed else 0
