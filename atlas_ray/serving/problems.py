"""Problem documents: the answers to refused requests (RFC 9457)."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

TITLES = {
    400: "Bad request", 401: "Not authenticated", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    408: "Request timeout", 409: "Conflict", 413: "Content too large", 415: "Unsupported media type",
    422: "Unprocessable content", 429: "Too many requests", 500: "Internal error", 503: "Unavailable",
    504: "Timeout",
}  # fmt: skip


class Problem(Exception):  # noqa: N818 - the name that RFC 9457 gives it
    """A request that is refused.

    Attributes:
        status: The HTTP status.
        code: A short stable name, such as `unknown_category`; it is part of the interface.
        detail: A sentence for a person.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """Return the members of the answer's JSON."""
        title = TITLES.get(self.status, "Error")
        return {"type": "about:blank", "title": title, "status": self.status, "code": self.code, "detail": self.detail}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.document(), self.status, headers=self.headers, media_type="application/problem+json")


def busy(what: str) -> Problem:
    """Return the refusal of a request for lack of room."""
    return Problem(429, "busy", f"{what} has as many requests as it takes; try again", {"Retry-After": "1"})
