"""A client of the endpoint, for programs that do not speak HTTP themselves."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import MaxRetryError, ResponseError
from urllib3.util import Retry

from atlas_ray.errors import ItemError, ServiceError, UnauthenticatedError

MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True)
class Alternative:
    """Another path that a picture may belong to."""

    category_path: tuple[str, ...]
    probability: float


@dataclass(frozen=True)
class Categorized:
    """What the endpoint says of one picture.

    Attributes:
        name: The file or object.
        category_path: Its path.
        probability: Of that path.
        level_probabilities: Of the path down to each level.
        alternatives: The next best paths.
        outside_probability: The share of what the model would say that is no path that was searched; `probability`
            is a share of the rest.
        attention: With `explain`, a PNG for each level as a data URI.
        model_id: The model that answered.
        taxonomy_id: What it chose from.
        picture_error: Why the answer goes by the texts alone, where the picture could not be had.
    """

    name: str
    category_path: tuple[str, ...]
    probability: float
    level_probabilities: tuple[float, ...]
    alternatives: tuple[Alternative, ...]
    outside_probability: float
    attention: tuple[str, ...]
    model_id: str
    taxonomy_id: str
    picture_error: str | None = None


class _TooLargeError(ServiceError):
    """A request has more bytes than the endpoint takes in one."""


class _Retry(Retry):
    """Asks again, but not where the endpoint itself says that it failed: it would fail again."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        """Return what is left to try."""
        said = "" if response is None else response.headers.get("Content-Type", "")
        if response is not None and response.status == 500 and "problem+json" in said:
            raise MaxRetryError(_pool, url or "", ResponseError("internal"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _Bearer(AuthBase):
    """Says who asks. Without it, requests would send what ~/.netrc has for the host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Client:
    """Asks one endpoint; what has no room yet is asked again after the time that the endpoint names."""

    def __init__(self, url: str, token: str = "", *, timeout_s: float = 60.0, attempts: int = 6) -> None:
        """Open a session; nothing is asked yet.

        Args:
            url: Where the endpoint is: `http://127.0.0.1:8000`.
            token: Who asks.
            timeout_s: For one answer.
            attempts: How often a request is sent while the endpoint is busy or not there.

        Raises:
            ServiceError: where `url` is none.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ServiceError(f"{url!r} is not an address; expected http://HOST:PORT")
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # Nothing that is asked changes anything, so it may be asked again. What took too long once
        # would only add to the load.
        retry = _Retry(
            total=attempts - 1,
            read=1,
            # HAProxy, where it stands before the gateways, says 500 for a gateway that went away.
            status_forcelist=(429, 500, 502, 503),
            retry_after_max=MAX_RETRY_AFTER_S,
            allowed_methods=None,
            backoff_factor=0.2,
            backoff_jitter=0.2,
            respect_retry_after_header=True,
            raise_on_status=False,
            redirect=False,
        )
        self._session.mount(self._url, HTTPAdapter(max_retries=retry))
        self._session.auth = _Bearer(token)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def categorize(
        self,
        pictures: Sequence[str | Path | bytes],
        *,
        within: str = "",
        top_k: int | None = None,
        explain: bool = False,
        model: str | None = None,
        titles: Sequence[str | None] | None = None,
        descriptions: Sequence[str | None] | None = None,
    ) -> list[Categorized | ItemError]:
        """Ask for picture files.

        Args:
            pictures: Local files, or their bytes; as many as one request may have. What is too large for
                one is asked in parts.
            within: Answer at or below this node: `Women > Ethnic Wear`.
            top_k: Paths a picture.
            explain: Ask where the model looked.
            model: The model's name; the endpoint's first where none is given.
            titles: Of each product, for a model that reads titles; None where it has none.
            descriptions: Of each product, likewise.

        Returns:
            What is said of each, in their order, or why it has no answer.

        Raises:
            ServiceError: where there are not as many texts as pictures, or the endpoint refuses, or does not answer.
            OSError: where a file cannot be read.
        """
        texts, count = _texts(len(pictures), titles, descriptions)
        fields = _given(within=within, top_k=top_k, explain=str(explain).lower())

        def ask(part: slice) -> dict[str, Any]:
            files = []
            for number, picture in enumerate(pictures[part], part.start + 1):
                name = f"picture {number}" if isinstance(picture, bytes) else os.fspath(picture)
                files.append(("file", (name, picture if isinstance(picture, bytes) else Path(picture).read_bytes())))
            # A form has no null.
            said = {name: [text or "" for text in column[part]] for name, column in texts.items()}
            return self._ask("POST", self._path(model, "categorize"), files=files, data=fields | said)

        return self._results(ask, slice(0, count))

    def categorize_uris(
        self,
        image_uris: Sequence[str | None],
        *,
        within: str = "",
        top_k: int | None = None,
        explain: bool = False,
        model: str | None = None,
        titles: Sequence[str | None] | None = None,
        descriptions: Sequence[str | None] | None = None,
    ) -> list[Categorized | ItemError]:
        """Ask for objects that the endpoint reads itself, None for a product without a picture.

        Otherwise as `categorize`.
        """
        texts, count = _texts(len(image_uris), titles, descriptions)
        fields = _given(within=within, top_k=top_k, explain=explain)

        def ask(part: slice) -> dict[str, Any]:
            said = {name: column[part] for name, column in texts.items()}
            wanted = {"image_uri": list(image_uris[part]), **fields, **said}
            return self._ask("POST", self._path(model, "categorize"), json=wanted)

        return self._results(ask, slice(0, count))

    def model(self, name: str | None = None) -> dict[str, Any]:
        """Return what a model is.

        Raises:
            ServiceError: as `categorize`.
        """
        return self._ask("GET", f"/v1/models/{quote(name, safe='')}" if name else "/v1/model")

    def taxonomy(self, name: str | None = None) -> list[tuple[str, ...]]:
        """Return the category paths that a model chooses from.

        Raises:
            ServiceError: as `categorize`.
        """
        return [tuple(path) for path in self._ask("GET", self._path(name, "taxonomy"))["category_paths"]]

    def _path(self, model: str | None, verb: str) -> str:
        return f"/v1/models/{quote(model, safe='')}/{verb}" if model else f"/v1/{verb}"

    def _results(self, ask: Callable[[slice], dict[str, Any]], part: slice) -> list[Categorized | ItemError]:
        """Ask for a part of what is wanted, and for each half of it where it is too large for one request."""
        try:
            return [_result(row) for row in ask(part)["results"]]
        except _TooLargeError as error:
            if part.stop - part.start == 1:
                return [ItemError("too_large", str(error))]
        middle = (part.start + part.stop) // 2
        return self._results(ask, slice(part.start, middle)) + self._results(ask, slice(middle, part.stop))

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        url = self._url + path
        try:
            answer = self._session.request(method, url, timeout=self._timeout_s, allow_redirects=False, **arguments)
        except requests.RequestException as error:
            raise ServiceError(f"{url}: no answer: {error}") from None
        try:
            document = answer.json()
        except ValueError:
            document = {}
        if answer.status_code != 200 or not isinstance(document, dict):
            said = document.get("detail") if isinstance(document, dict) else None
            kind = {401: UnauthenticatedError, 413: _TooLargeError}.get(answer.status_code, ServiceError)
            raise kind(f"{url} answers {answer.status_code}: {said or answer.reason}")
        return document


def _texts(
    pictures: int, titles: Sequence[str | None] | None, descriptions: Sequence[str | None] | None
) -> tuple[dict[str, list[str | None]], int]:
    """Return the texts that are given, by field, and how many products there are; without pictures as many as texts."""
    given = {"title": titles, "description": descriptions}
    texts = {name: list(column) for name, column in given.items() if column is not None}
    count = pictures or max(map(len, texts.values()), default=0)
    for name, column in texts.items():
        if len(column) != count:
            raise ServiceError(f"{len(column)} {name}s for {count} products; expected one for each")
    return texts, count


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in ("", None)}


def _result(row: Mapping[str, Any]) -> Categorized | ItemError:
    if error := row.get("error"):
        return ItemError(error["code"], error["message"])
    others = (Alternative(tuple(other["category_path"]), other["probability"]) for other in row["alternatives"])
    return Categorized(
        name=row["name"],
        category_path=tuple(row["category_path"]),
        probability=row["probability"],
        level_probabilities=tuple(row["level_probabilities"]),
        alternatives=tuple(others),
        outside_probability=row["outside_probability"],
        attention=tuple(row.get("attention", ())),
        model_id=row["model_id"],
        taxonomy_id=row["taxonomy_id"],
        picture_error=row.get("picture_error"),
    )
