"""`categorize`: questions to a running endpoint."""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas_ray.cli.command import EXIT_OK, EXIT_QUARANTINE

if TYPE_CHECKING:
    from atlas_ray.client import Client

TOKEN_VARIABLE = "ATLAS_RAY_TOKEN"
PICTURES_PER_REQUEST = 16


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `categorize`."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="a picture: a file, or an s3:// or http(s) address; none to ask by titles or descriptions alone",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the endpoint (default: %(default)s)")
    parser.add_argument("--token-file", help=f"file that holds the token (default: the token in ${TOKEN_VARIABLE})")
    parser.add_argument("--within", default="", help="answer at or below this path: 'Women > Ethnic Wear'")
    parser.add_argument("--top-k", type=int, help="number of paths for each picture")
    parser.add_argument("--model", help="name of the model, if the endpoint serves several")
    for name in ("title", "description"):
        parser.add_argument(
            f"--{name}",
            action="append",
            help=f"the product's {name}; given once for each product, '' for one without it",
        )


def run(options: argparse.Namespace) -> int:
    """Ask a running endpoint for the category paths of products."""
    from atlas_ray.client import Client
    from atlas_ray.errors import ConfigError, ItemError, ServiceError, StorageError, UnauthenticatedError
    from atlas_ray.reports.terminal import print_categorized

    token = os.environ.get(TOKEN_VARIABLE, "")
    if options.token_file:
        try:
            with open(options.token_file, encoding="utf-8") as stream:
                token = stream.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"--token-file {options.token_file!r} cannot be read: {error}") from None
    texts = {f"{name}s": getattr(options, name) for name in ("title", "description") if getattr(options, name)}
    titles: list[str] = next(iter(texts.values()), [])
    pictures: list[str | None] = options.files or [None] * len(titles)
    if not pictures:
        raise ConfigError("nothing to ask about: name pictures, or give a --title or a --description")
    for name, given in texts.items():
        if len(given) != len(pictures):
            raise ConfigError(f"--{name[:-1]} stands {len(given)} times for {len(pictures)} products")
    rows: list[tuple[str, Any]] = []
    settings = {"within": options.within, "top_k": options.top_k, "model": options.model}
    try:
        with Client(options.url, token) as client:
            for start in range(0, len(pictures), PICTURES_PER_REQUEST):
                part = slice(start, start + PICTURES_PER_REQUEST)
                part_texts = {name: column[part] for name, column in texts.items()}
                results = _categorized(client, pictures[part], part_texts, settings)
                rows += zip((options.files or titles)[part], results, strict=True)
    except UnauthenticatedError as error:
        raise ServiceError(f"{error}; give the token with --token-file FILE, or in {TOKEN_VARIABLE}") from None
    finally:  # what was answered before a request failed is shown all the same
        if rows:
            print_categorized(rows)
    return EXIT_QUARANTINE if any(isinstance(result, ItemError) for _, result in rows) else EXIT_OK


def _categorized(
    client: "Client", pictures: Sequence[str | None], texts: Mapping[str, Sequence[str]], settings: Mapping[str, Any]
) -> list[Any]:
    """Ask about products, files and addresses each in a request of their own; return each one's result.

    Args:
        client: The endpoint.
        pictures: Of each product a file or an address; None for one without a picture.
        texts: Of each product its `titles` and `descriptions`.
        settings: Further arguments of the questions.

    Raises:
        StorageError: if a file cannot be read.
    """
    from atlas_ray.errors import StorageError

    results: dict[int, Any] = {}
    for ask, is_file in ((client.categorize, True), (client.categorize_uris, False)):
        places = [place for place, name in enumerate(pictures) if (name is not None and "://" not in name) == is_file]
        if not places:
            continue
        place_texts: dict[str, Any] = {name: [column[place] for place in places] for name, column in texts.items()}
        asked: list[Any] = [pictures[place] for place in places]
        try:
            answers = ask(asked, **settings, **place_texts)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}") from None
        results |= zip(places, answers, strict=True)
    return [results[place] for place in range(len(pictures))]
