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
    parser.add_argument("files", metavar="FILE", nargs="+", help="a picture: a file, or an s3:// or http(s) address")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the endpoint (default: %(default)s)")
    parser.add_argument("--token-file", help=f"file that holds the token (default: the token in ${TOKEN_VARIABLE})")
    parser.add_argument("--within", default="", help="answer at or below this path: 'Women > Ethnic Wear'")
    parser.add_argument("--top-k", type=int, help="number of paths for each picture")
    parser.add_argument("--model", help="name of the model, if the endpoint serves several")
    for name in ("title", "description"):
        parser.add_argument(
            f"--{name}",
            action="append",
            help=f"the product's {name}; given once for each picture, '' for a product without one",
        )


def run(options: argparse.Namespace) -> int:
    """Ask a running endpoint for the category paths of pictures."""
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
    for name, given in texts.items():
        if len(given) != len(options.files):
            raise ConfigError(f"--{name[:-1]} stands {len(given)} times for {len(options.files)} pictures")
    rows: list[tuple[str, Any]] = []
    settings = {"within": options.within, "top_k": options.top_k, "model": options.model}
    try:
        with Client(options.url, token) as client:
            for start in range(0, len(options.files), PICTURES_PER_REQUEST):
                part = slice(start, start + PICTURES_PER_REQUEST)
                part_texts = {name: column[part] for name, column in texts.items()}
                rows += _categorized(client, options.files[part], part_texts, settings)
    except UnauthenticatedError as error:
        raise ServiceError(f"{error}; give the token with --token-file FILE, or in {TOKEN_VARIABLE}") from None
    finally:  # what was answered before a request failed is shown all the same
        if rows:
            print_categorized(rows)
    return EXIT_QUARANTINE if any(isinstance(result, ItemError) for _, result in rows) else EXIT_OK


def _categorized(
    client: "Client", names: Sequence[str], texts: Mapping[str, Sequence[str]], settings: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Ask about pictures, files and addresses each in a request of their own; return each name with its result.

    Raises:
        StorageError: if a file cannot be read.
    """
    from atlas_ray.errors import StorageError

    results: dict[int, Any] = {}
    for ask, is_remote in ((client.categorize, False), (client.categorize_uris, True)):
        places = [place for place, name in enumerate(names) if ("://" in name) == is_remote]
        if not places:
            continue
        place_texts: dict[str, Any] = {name: [column[place] for place in places] for name, column in texts.items()}
        try:
            answers = ask([names[place] for place in places], **settings, **place_texts)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}") from None
        results |= zip(places, answers, strict=True)
    return [(name, results[place]) for place, name in enumerate(names)]
