"""A client of the endpoint, for programs in Python."""

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
"""Longest pause before a retry, whatever the endpoint asks for."""


@dataclass(frozen=True)
class Alternative:
    """Another path that a picture may belong to."""

    category_path: tuple[str, ...]
    probability: float


@dataclass(frozen=True)
class Label:
    """A label that a picture may have."""

    label: str
    probability: float


@dataclass(frozen=True)
class Categorized:
    """The endpoint's result for one product.

    Attributes:
        name: The file or object.
        category_path: The most probable category path.
        probability: The probability of that path.
        level_probabilities: The probability of the path down to each level.
        alternatives: The next best paths.
        outside_probability: The share of what the model would say that is no path that was searched; `probability`
            is a share of the rest.
        attention: With `explain`, an attention map for each level, as the data URI of a PNG.
        model_id: The model that answered.
        taxonomy_id: The taxonomy whose paths were searched.
        picture_error: Why the picture could not be used, if the result is from the texts alone.
        labels: The labels that a model of labels applies; then there is no path: it is (), and its numbers are 0.
        other_labels: Those that are less probable.
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
    labels: tuple[Label, ...] = ()
    other_labels: tuple[Label, ...] = ()


class _TooLargeError(ServiceError):
    """A request has more bytes than the endpoint takes in one."""


class _Retry(Retry):
    """Retries, except after the endpoint's own internal error, which would occur again."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        """Return the remaining retries."""
        content_type = "" if response is None else response.headers.get("Content-Type", "")
        if response is not None and response.status == 500 and "problem+json" in content_type:
            raise MaxRetryError(_pool, url or "", ResponseError("internal"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _Bearer(AuthBase):
    """Bearer authentication; it also keeps requests from sending what ~/.netrc has for the host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Client:
    """A session with one endpoint; a request that it has no room for is sent again after the time that it names."""

    def __init__(self, url: str, token: str = "", *, timeout_s: float = 60.0, attempts: int = 6) -> None:
        """Open a session; nothing is sent yet.

        Args:
            url: The address of the endpoint: `http://127.0.0.1:8000`.
            token: The caller's token; "" without one.
            timeout_s: Seconds to wait for an answer.
            attempts: How often a request is sent in all while the endpoint is busy or unreachable.

        Raises:
            ServiceError: if `url` is invalid.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ServiceError(f"{url!r} is not an address; expected http://HOST:PORT")
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # No request changes anything, so each may be repeated; but one that timed out would only add to the load.
        retry = _Retry(
            total=attempts - 1,
            read=1,
            # A HAProxy before the gateways answers 500 for a gateway that went away.
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
        """Categorize products, their pictures given as files.

        Args:
            pictures: Local files, or their bytes, as many as one request may have. A request that is too large
                is sent in parts.
            within: Answer at or below this node: `Women > Ethnic Wear`.
            top_k: Number of paths for each picture.
            explain: Return attention maps.
            model: The model's name; None for the endpoint's first.
            titles: The title of each product, for a model that reads titles; None if it has none.
            descriptions: The description of each product, likewise.

        Returns:
            The result of each product, in order, or its error.

        Raises:
            ServiceError: if there are not as many texts as pictures, or the endpoint refuses or does not answer.
            OSError: if a file cannot be read.
        """
        texts, count = _texts(len(pictures), titles, descriptions)
        fields = _given(within=within, top_k=top_k, explain=str(explain).lower())

        def ask(part: slice) -> dict[str, Any]:
            files = []
            for number, picture in enumerate(pictures[part], part.start + 1):
                name = f"picture {number}" if isinstance(picture, bytes) else os.fspath(picture)
                files.append(("file", (name, picture if isinstance(picture, bytes) else Path(picture).read_bytes())))
            # A form has no null.
            part_texts = {name: [text or "" for text in column[part]] for name, column in texts.items()}
            return self._ask("POST", self._path(model, "categorize"), files=files, data=fields | part_texts)

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
        """Categorize products, their pictures given as URIs that the endpoint reads, None for one without.

        Otherwise as `categorize`.
        """
        texts, count = _texts(len(image_uris), titles, descriptions)
        fields = _given(within=within, top_k=top_k, explain=explain)

        def ask(part: slice) -> dict[str, Any]:
            document = {"image_uri": list(image_uris[part]), **fields}
            document |= {name: column[part] for name, column in texts.items()}
            return self._ask("POST", self._path(model, "categorize"), json=document)

        return self._results(ask, slice(0, count))

    def model(self, name: str | None = None) -> dict[str, Any]:
        """Describe a model.

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
        """Send a request for a part of the products; if it is too large, one for each half."""
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
            detail = document.get("detail") if isinstance(document, dict) else None
            kind = {401: UnauthenticatedError, 413: _TooLargeError}.get(answer.status_code, ServiceError)
            raise kind(f"{url} answers {answer.status_code}: {detail or answer.reason}")
        return document


def _texts(
    pictures: int, titles: Sequence[str | None] | None, descriptions: Sequence[str | None] | None
) -> tuple[dict[str, list[str | None]], int]:
    """Return the texts by field, and the number of products: of the pictures, or without any of the texts."""
    columns = {"title": titles, "description": descriptions}
    texts = {name: list(column) for name, column in columns.items() if column is not None}
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
    others = (
        Alternative(tuple(other["category_path"]), other["probability"]) for other in row.get("alternatives") or ()
    )
    return Categorized(
        name=row["name"],
        category_path=tuple(row.get("category_path") or ()),
        probability=row.get("probability") or 0.0,
        level_probabilities=tuple(row.get("level_probabilities") or ()),
        alternatives=tuple(others),
        outside_probability=row.get("outside_probability") or 0.0,
        attention=tuple(row.get("attention", ())),
        model_id=row["model_id"],
        taxonomy_id=row["taxonomy_id"],
        picture_error=row.get("picture_error"),
        labels=_labels(row.get("labels")),
        other_labels=_labels(row.get("other_labels")),
    )


def _labels(rows: Sequence[Mapping[str, Any]] | None) -> tuple[Label, ...]:
    return tuple(Label(row["label"], row["probability"]) for row in rows or ())
