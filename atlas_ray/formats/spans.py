"""Parts of a large text file, each a range of bytes, which many tasks read at the same time.

A span has the lines that begin in its range; its first line begins after the first line feed at or after the range's
start. A record may go on in the next span's first lines, which belong to it then: the reader of a span says how many
lines it took beyond its own, and the next span has to have left out as many.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from atlas_ray.errors import UserError
from atlas_ray.formats.text_files import AUTO, BLOCK_BYTES, Utf8Stream, check_packed, is_compressed, unpacked_blocks
from atlas_ray.io import storage

SPAN_BYTES = 32 * 1024 * 1024
"""The length of a span of a large file."""
WIDE = b"\0"
"""A byte that texts hold in encodings whose line feeds are not single bytes."""


@dataclass(frozen=True)
class Span:
    """A range of bytes of a text file; `stop` is None for one that is read to its end, as a stream."""

    uri: str
    start: int = 0
    stop: int | None = None
    size: int = 0
    """About how many bytes it has."""


def spans_of(uri: str, error: type[UserError], *, span_bytes: int = 0) -> list[Span]:
    """Cut a file into spans; one that cannot be cut, being compressed or in UTF-16, is one span.

    Raises:
        StorageError: if it cannot be read.
        UserError: of the given class, if it is not a text.
    """
    span_bytes = span_bytes or SPAN_BYTES
    size = storage.size(uri)
    if size <= span_bytes or is_compressed(uri):
        return [Span(uri, size=size)]
    with storage.open_input(uri) as stream:
        head = stream.read(BLOCK_BYTES)
    check_packed(uri, head, error)
    if WIDE in head or b"\n" not in head:
        return [Span(uri, size=size)]
    edges = [*range(0, size, span_bytes), size]
    return [Span(uri, start, stop, stop - start) for start, stop in itertools.pairwise(edges)]


class SpanText:
    """The text of a span.

    Attributes:
        stream: Its lines, and those after it, as far as they are asked for.
        own_lines: How many of them begin in the span; None for one that is read to its end.
    """

    def __init__(self, span: Span, error: type[UserError], encoding: str = AUTO, *, assumed: str = "") -> None:
        """Open a span.

        Args:
            span: Which.
            error: The error for a file that is not a text.
            encoding: Of the file, if somebody named it.
            assumed: See `Utf8Stream`.
        """
        self.own_lines: int | None = None
        if span.stop is None:
            blocks = unpacked_blocks(span.uri, error)
            first = next(blocks, b"")
            check_packed(span.uri, first, error)
            self.stream = Utf8Stream(_chain(first, blocks), encoding, assumed=assumed)
            return
        own, rest = _lines_of(span.uri, span.start, span.stop)
        if not span.start:
            check_packed(span.uri, own[:BLOCK_BYTES], error)
        self.own_lines = len(own.splitlines())
        own_blocks = (own[at : at + BLOCK_BYTES] for at in range(0, len(own), BLOCK_BYTES))
        self.stream = Utf8Stream(_chain(b"", own_blocks, rest), encoding, assumed=assumed)


def _chain(first: bytes, *blocks: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    for some in blocks:
        yield from some


def _lines_of(uri: str, start: int, stop: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the lines that begin in a range of bytes, and what follows them."""
    place = storage.locate(uri)
    with storage.named(uri):
        stream = place.filesystem.open_input_file(place.path)
    begin = _next_line(stream, start)
    end = _next_line(stream, max(stop, begin))
    stream.seek(begin)
    own = stream.read(end - begin)

    def rest() -> Iterator[bytes]:
        with stream:
            stream.seek(end)
            while block := stream.read(BLOCK_BYTES):
                yield bytes(block)

    return bytes(own), rest()


def _next_line(stream: pa.NativeFile, at: int) -> int:
    """Return where the first line begins that does not begin before a place."""
    if not at:
        return 0
    stream.seek(at - 1)
    before = at - 1
    while block := stream.read(64 * 1024):
        found = int(block.find(b"\n"))
        if found >= 0:
            return before + found + 1
        before += len(block)
    return before
