"""Files of a source cut into parts."""

from collections.abc import Callable

from atlas_ray.catalog.parts import Origin, Part
from atlas_ray.errors import CatalogError
from atlas_ray.formats.spans import Span, spans_of
from atlas_ray.formats.text_files import COMPRESSED_SUFFIXES
from atlas_ray.io import storage

ROW_BYTES = 300
"""About how many bytes a row of a text file has."""


def files_of(source: Origin, suffixes: tuple[str, ...], otherwise: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Return the files of a source, each with its name within the source, if that is a folder.

    Args:
        source: A file, whatever its name, or a folder.
        suffixes: Of the files in a folder, which may be compressed.
        otherwise: Of those in a folder that has none with these.

    Raises:
        CatalogError: if the folder has no such file.
    """
    if not storage.is_folder(source.uri):
        return [(source.uri, "")]
    there = sorted(name for name, _ in storage.walk(source.uri) if not storage.is_hidden(name))
    for some in (suffixes, otherwise):
        packed = tuple(suffix + ending for suffix in some for ending in ("", *COMPRESSED_SUFFIXES))
        if names := [name for name in there if name.lower().endswith(packed)]:
            return [(storage.join(source.uri, name), name) for name in names]
    raise CatalogError(f"{source.uri}: no file in it whose name ends in {suffixes[0]}")


def in_spans(*suffixes: str, otherwise: tuple[str, ...] = ()) -> Callable[..., list[Part]]:
    """Return what cuts text files into spans of lines."""

    def parts(source: Origin, *, whole: bool) -> list[Part]:
        spans = [
            (span, name)
            for uri, name in files_of(source, suffixes, otherwise)
            for span in ([Span(uri)] if whole else spans_of(uri, CatalogError))
        ]
        return [
            Part(number, span.uri, rows=span.size // ROW_BYTES + 1, bytes=span.size, name=name, span=span)
            for number, (span, name) in enumerate(spans)
        ]

    return parts


def as_one(source: Origin, *, whole: bool) -> list[Part]:  # noqa: ARG001 - as the others
    """Return the source as one part."""
    size = 0 if storage.is_folder(source.uri) else storage.size(source.uri)
    return [Part(0, source.uri, rows=size // ROW_BYTES + 1, bytes=size)]


def in_files(*suffixes: str) -> Callable[..., list[Part]]:
    """Return what makes each file a part."""

    def parts(source: Origin, *, whole: bool) -> list[Part]:  # noqa: ARG001 - as the others
        found = []
        for number, (uri, name) in enumerate(files_of(source, suffixes)):
            size = storage.size(uri)
            found.append(Part(number, uri, rows=size // ROW_BYTES + 1, bytes=size, name=name))
        return found

    return parts
