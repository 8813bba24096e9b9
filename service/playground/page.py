"""The page's files, served unchanged from the wheel, under a strict content security policy."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Revalidated each time, so that a page never runs with the scripts of an older server.
    "Cache-Control": "no-cache",
}


class Page(StaticFiles):
    """The page's files, whose security policy allows connections to this server only."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the page's headers."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def mount(app: FastAPI) -> None:
    """Serve the page under ``/playground/``, and redirect from ``/`` to it."""
    app.add_route("/", to_page, include_in_schema=False)
    app.mount("/playground", Page(directory=STATIC, html=True), name="playground")


def to_page(_request: Request) -> Response:
    """Return a redirect to the page, relative so that it works below a proxy's path too."""
    return RedirectResponse("playground/")
