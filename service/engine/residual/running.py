"""Connects the residual stream to the steps of vLLM's runners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from service.engine.residual.hooks import LayerHooks
from service.engine.residual.step import StepLayout
from service.engine.residual.stream import ResidualStream


class RunningSteps:
    """Prepares the stream and the hooks of one model for each of its steps."""

    def __init__(self, stream: ResidualStream, hooks: LayerHooks) -> None:
        self._stream = stream
        self._hooks = hooks

    @contextmanager
    def running(self, scheduler_output: Any) -> Iterator[None]:
        """Track the requests that end and begin with a step; end the step after the context."""
        for request_id in scheduler_output.finished_req_ids:
            self._stream.end(request_id)
        for new in scheduler_output.scheduled_new_reqs:
            self._stream.start(new.req_id, new.sampling_params, new.prompt_len)
        try:
            yield
        finally:
            self._stream.end_step()

    def begin(self, layout: StepLayout) -> None:
        """Prepare a step that the model is about to run."""
        self._stream.begin_step(layout)
        self._hooks.fit(self._stream.is_idle)


_of_runners: WeakKeyDictionary[Any, RunningSteps] = WeakKeyDictionary()


def follow(runner: Any, steps: RunningSteps) -> None:
    """Connect a runner to its steps."""
    _of_runners[runner] = steps


def steps_of(runner: Any) -> RunningSteps | None:
    """Return a runner's steps; None for the runner of a draft model."""
    return _of_runners.get(runner)


def followed_v1(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V1's ``_model_forward``, which prepares the step first."""

    def model_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (steps := steps_of(self)) is not None:
            steps.begin(StepLayout.of_v1(self))
        return stock(self, *args, **kwargs)

    return model_forward


def followed_v2(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V2's ``prepare_attn``, which then prepares the step of a real batch.

    Runs of a dummy batch do not call it.
    """

    def prepare_attn(self: Any, input_batch: Any) -> Any:
        prepared = stock(self, input_batch)
        if (steps := steps_of(self)) is not None:
            steps.begin(StepLayout.of_v2(input_batch))
        return prepared

    return prepare_attn
