"""The outcome of a request to one of Sensefield's routes, for the metrics and the audit log."""

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
    """The outcome of one request, ``server_error`` by default."""

    def __init__(self, route: str, visit: Visit) -> None:
        self.name = "server_error"
        self._route = route
        self._visit = visit
        IN_FLIGHT.inc()

    def uses(self, controls: Mapping[str, int]) -> None:
        """Record the number of control entries by kind; only the first call counts."""
        if not self._visit.controls:
            self._visit.controls = dict(controls)
            for kind in controls:
                CONTROLLED.labels(kind).inc()

    def fail(self, status: int) -> None:
        """Record that the request ended with an error of this status."""
        self.name = outcome_of(status)

    def cancel(self) -> None:
        """Record that the client has disconnected, or does not read."""
        self.name = "cancelled"

    def end(self, tokens: int | None = None) -> None:
        """Count the request and the tokens that it generated."""
        self._visit.end(self.name, tokens)
        IN_FLIGHT.dec()
        REQUESTS.labels(self._route, self._visit.outcome).inc()


@contextmanager
def counted(route: str, visit: Visit) -> Iterator[Outcome]:
    """Count a request that ends with the context; its exception decides the outcome."""
    outcome = Outcome(route, visit)
    try:
        yield outcome
        outcome.name = "ok"
    except RequestError as error:
        outcome.fail(error.status)
        raise
    except GracefulHTTPError as error:
        # The server ends requests with it when the engine hangs or the server stops.
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
