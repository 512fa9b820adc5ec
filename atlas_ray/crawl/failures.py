"""Outcomes of failed requests: what Scrapy raises, turned into stable codes."""

from urllib.parse import urlsplit

from scrapy import Request
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost

from atlas_ray.crawl.frontier import Outcome
from atlas_ray.errors import FetchError
from atlas_ray.io.robots import FORBIDDEN_BY_ROBOTS

STATUS_CODES = {401: "forbidden", 403: "forbidden", 404: "not_found", 410: "not_found", 429: "too_many_requests"}
CODES: tuple[tuple[type[Exception], str], ...] = (
    (CannotResolveHostError, "dns"),
    (DownloadTimeoutError, "timeout"),
    (DownloadCancelledError, "too_large"),  # Scrapy cancels what exceeds DOWNLOAD_MAXSIZE, and nothing else
    (DownloadConnectionRefusedError, "unreachable"),
    (DownloadFailedError, "unreachable"),
    (ResponseDataLossError, "truncated"),
    (ConnectError, "unreachable"),
    (ConnectionDone, "unreachable"),
    (ConnectionLost, "unreachable"),
    (ValueError, "unsupported_uri"),  # a Location header that is no URL
    (OSError, "corrupt"),  # a body that does not decompress
)
# Scrapy raises one exception for these and tells them apart by the text only.
IGNORED = {
    "Forbidden by robots.txt": FORBIDDEN_BY_ROBOTS,
    "max redirections reached": "redirect_loop",
    "exceeded DOWNLOAD_MAXSIZE": "too_large",
}


class Refused(IgnoreRequest):
    """A request that `GateMiddleware` refuses."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def outcome_of(error: BaseException, request: Request) -> Outcome:
    """Return what became of a request that an exception ended."""
    hops = _hops(request)
    if isinstance(error, Refused):
        return Outcome(error.code, f"{error}{hops}")
    if isinstance(error, HttpError):
        status = error.response.status
        code = STATUS_CODES.get(status, "server_error" if status >= 500 else "bad_status")
        return Outcome(code, f"HTTP status {status}{hops}")
    if isinstance(error, IgnoreRequest):
        for text, code in IGNORED.items():
            if text in str(error):
                return Outcome(code, f"{str(error)[:300]}{hops}")
    if request.meta.get("playwright"):
        return Outcome("render_failed", f"{type(error).__name__}: {str(error)[:300]}{hops}")
    for kind, code in CODES:
        if isinstance(error, kind):
            if kind is CannotResolveHostError and (refused := _refusal(request)):
                return Outcome("forbidden_address", f"{refused}{hops}")
            return Outcome(code, f"{type(error).__name__}: {str(error)[:300]}{hops}")
    return Outcome("internal_error", f"{type(error).__name__}: {str(error)[:300]}{hops}")


def _hops(request: Request) -> str:
    """Tell the last URL if it is another than the one asked for first."""
    return f" (redirected to {request.url[:300]!r})" if request.meta.get("redirect_urls") else ""


def _refusal(request: Request) -> str | None:
    """Return why the resolver gave no address for a request's host, if that was for its being private."""
    from twisted.internet import reactor  # at the top of a file it would install another reactor than Scrapy's

    refused: FetchError | None = reactor.nameResolver.refused.get(urlsplit(request.url).hostname)
    return None if refused is None else refused.message
