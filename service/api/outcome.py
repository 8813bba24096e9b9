"""How a request to one of Sensefield's routes ends: counted once, and told to the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.access.visit import Visit, outcome_of
from service.engine.vllm_errors import EngineDeadError, GracefulHTTPError
from service.errors import DeadlineError, EngineError, NotReadyError, RequestError
from service.metrics import CONTROLLED, IN_FLIGHT, REQUESTS

_ENDED: Mapping[int, type[RequestError]] = {
    error.status: error for error in (NotReadyError, DeadlineError)
}


class Outcome:
    """Of one request; it is an error of the server's until something else is known."""

    def __init__(self, route: str, visit: Visit) -> None:
        self.name = "server_error"
        self._route = route
        self._visit = visit
        IN_FLIGHT.inc()

    def uses(self, controls: Mapping[str, int]) -> None:
        """Take down the request's entries of control by kind, the first time it is told."""
        if not self._visit.controls:
            self._visit.controls = dict(controls)
            for kind in controls:
                CONTROLLED.labels(kind).inc()

    def fail(self, status: int) -> None:
        """Take down that it ended with an error of such a status."""
        self.name = outcome_of(status)

    def cancel(self) -> None:
        """Take down that its client has left, or takes nothing."""
        self.name = "cancelled"

    def end(self, tokens: int | None = None) -> None:
        """Count the request, which generated so many tokens."""
        self._visit.end(self.name, tokens)
        IN_FLIGHT.dec()
        REQUESTS.labels(self._route, self._visit.outcome).inc()


@contextmanager
def counted(route: str, visit: Visit) -> Iterator[Outcome]:
    """Count a request that ends with the context, by what ends it."""
    outcome = Outcome(route, visit)
    try:
        yield outcome
        outcome.name = "ok"
    except RequestError as error:
        outcome.fail(error.status)
        raise
    except GracefulHTTPError as error:
        # How the server ends the requests of an engine that stands still, and its own.
        outcome.fail(error.http_status)
        raise _ENDED.get(error.http_status, EngineError)(str(error)) from None
    except EngineDeadError as error:
        outcome.fail(EngineError.status)
        raise EngineError(str(error)) from None
    except asyncio.CancelledError:
        outcome.name = "cancelled"
        raise
    finally:
        outcome.end()
