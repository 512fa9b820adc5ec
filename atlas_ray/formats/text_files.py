"""Text files of any encoding, as UTF-8 and as lines: what catalogues, taxonomies and lists of shops are read from.

UTF-8, UTF-16 and UTF-32 with a byte order mark are read as they say. In a file without one the first bytes beyond ASCII
decide: most often they are UTF-8; if not, an older encoding is assumed, and `Utf8Stream.assumed` says so.
"""

import codecs
import itertools
import logging
import re
from collections.abc import Iterable, Iterator

import pyarrow as pa

from atlas_ray.errors import ConfigError, RowError, UserError
from atlas_ray.formats.values import LINE_ENDS, printable
from atlas_ray.io import storage

LOGGER = logging.getLogger(__name__)
AUTO = "auto"
BLOCK_BYTES = 1 << 20
SAMPLE_BYTES = 64 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like the next one
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
)
NO_TEXT = b"\xff"
"""A byte that is a letter in some encodings, and a sign of damage in any other file of a shop."""
CYRILLIC = ("cp1251", "koi8-r", "koi8-u")
"""Encodings in which `NO_TEXT` is a common letter."""
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""Compressions that are read as they are, by a file's first bytes."""
COMPRESSED_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
PACKED = (
    ((".xlsx", ".xlsm", ".ods"), b"PK\x03\x04", "a spreadsheet or zip file; save its sheet as a CSV in UTF-8"),
    ((".xls",), b"\xd0\xcf\x11\xe0", "an Excel workbook; save its sheet as a CSV in UTF-8"),
    ((".zip",), b"PK\x05\x06", "a zip file; unpack it first"),
    ((".bz2",), b"BZh", "a bzip2 file; unpack it first (bunzip2)"),
    ((".parquet",), b"PAR1", "a Parquet file, not a text"),
    ((".xml", ".rss", ".atom"), b"<?xml", "an XML file, not a text; a product feed is read by `import --format feed`"),
    ((".pdf",), b"%PDF", "a PDF, not a table; ask for its CSV"),
)
"""Name endings and first bytes of files that hold no table of text as they are, and what to do about them."""

Line = tuple[int, str, RowError | None]
"""A line: its number, its text with its line end, and why it is damaged, if it is."""

codecs.register_error("atlas_ray.undecodable", lambda error: ("\udcff", getattr(error, "end", 0)))
UNDECODABLE = "atlas_ray.undecodable"
"""The codec error handler that writes a lone surrogate for undecodable bytes, so that their line is invalid UTF-8."""


def check_packed(source: str, head: bytes, error: type[UserError]) -> None:
    """Refuse a file that is no text by its first bytes, and say what to do.

    Raises:
        UserError: of the kind that was given.
    """
    for _, magic, advice in PACKED:
        if head.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n\t ").startswith(magic):
            raise error(f"{source}: {advice}")


def check_encoding(encoding: str) -> str:
    """Return the encoding that a name stands for, or `auto`.

    Raises:
        ConfigError: for a name that is unknown.
    """
    try:
        known = AUTO if encoding == AUTO else codecs.lookup(encoding).name
        "".encode(known if known != AUTO else "utf-8")
    except LookupError:
        raise ConfigError(
            f"--encoding {printable(encoding)!r} is unknown; expected auto, or such as utf-8, windows-1252 or utf-16"
        ) from None
    return known


class Utf8Stream:
    """The bytes of a text file as UTF-8; what cannot be decoded is invalid in them, too.

    Attributes:
        encoding: What the file is read as, as far as it has been read.
        assumed: Whether the encoding is a guess.
    """

    def __init__(self, blocks: Iterable[bytes], encoding: str = AUTO, *, assumed: str = "") -> None:
        """Take the blocks of a file in their order.

        Args:
            blocks: Of the file, or of a part of it.
            encoding: Of the file, if somebody named it.
            assumed: The encoding that another part of the file was read with, if that is a guess.
        """
        self.encoding = "utf-8" if encoding == AUTO else check_encoding(encoding)
        self.assumed = False
        self._named = self._decided = encoding != AUTO
        self._decoder: codecs.IncrementalDecoder | None = None
        if assumed and not self._decided:
            self._assume(assumed)
        self._output = self._convert(_whole_lines(blocks))

    @property
    def encoding_name(self) -> str:
        """The encoding as people call it."""
        return re.sub(r"^CP(?=125\d$)", "Windows-", self.encoding.upper())

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, however many they are; b"" at the end, or if none are wanted."""
        while size and (block := next(self._output, None)) is not None:
            if block:
                return block
        return b""

    def warn_if_assumed(self, source: str) -> None:
        """Say what was assumed of a file, for those who read it without a report."""
        if self.assumed:
            LOGGER.warning("%s: read as %s, which is a guess; save it in UTF-8 to be sure", source, self.encoding_name)

    def _convert(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        first = self._begin(next(blocks, b""))
        for block in itertools.chain([first], blocks):
            if not (self._decided or block.isascii()):
                self._decide(block)
            yield self._utf8(block)
        if self._decoder is not None:
            yield self._decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")

    def _begin(self, first: bytes) -> bytes:
        """Look for a byte order mark, or for the zero bytes of UTF-16, and return the block without the mark."""
        for mark, encoding in MARKS:
            if first.startswith(mark):
                self.encoding, self._decided = encoding, True
                first = first[len(mark) :]
                break
        if not self._decided and (head := first[:4096]).count(0) > len(head) / 3:
            even, odd = head[::2].count(0), head[1::2].count(0)
            if max(even, odd) > 10 * min(even, odd):
                self.encoding, self._decided, self.assumed = ("utf-16-le" if odd > even else "utf-16-be"), True, True
        if self.encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(self.encoding)(UNDECODABLE)
        return first

    def _decide(self, block: bytes) -> None:
        """Tell the encoding from the first bytes beyond ASCII."""
        self._decided = True
        lines = [line for line in block.splitlines(keepends=True) if not line.isascii()]
        cut = len(block) >= BLOCK_BYTES  # its last character may go on in the next block
        valid = sum(_is_utf8(line) for line in lines[:-1]) + _is_utf8(lines[-1], cut=cut)
        if 2 * valid >= len(lines):
            return
        encoding = _older_encoding(lines)
        if encoding is not None:
            self._assume(encoding)

    def _assume(self, encoding: str) -> None:
        self.encoding, self.assumed, self._decided = encoding, encoding != "utf-8", True
        if self.assumed:
            self._decoder = codecs.getincrementaldecoder(encoding)(UNDECODABLE)

    @property
    def told(self) -> str:
        """The encoding that bytes beyond ASCII gave away so far; "" if there was none, or somebody named one."""
        return self.encoding if self._decided and not self._named else ""

    def _utf8(self, block: bytes) -> bytes:
        if self._decoder is None:
            return block
        if not self.assumed or self.encoding.startswith("utf-16"):
            return self._decoder.decode(block).encode("utf-8", "surrogatepass")
        # Lines in UTF-8 may stand beside others, where somebody put two exports together.
        return b"".join(
            line if _is_utf8(line) else self._decoder.decode(line).encode("utf-8", "surrogatepass")
            for line in block.splitlines(keepends=True)
        )


def _is_utf8(line: bytes, *, cut: bool = False) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line, final=not cut)
    except UnicodeDecodeError:
        return False
    return True


def _older_encoding(lines: list[bytes]) -> str | None:
    """Guess the encoding of lines that are not UTF-8, as browsers do; None if they look damaged."""
    from chardetng_py import EncodingDetector
    from w3lib.encoding import resolve_encoding

    detector = EncodingDetector()
    detector.feed(b"".join(lines)[:SAMPLE_BYTES], last=True)
    found = detector.guess(tld=None, allow_utf8=False)
    try:
        encoding = codecs.lookup(resolve_encoding(found) or found).name
    except LookupError:  # browsers know some that Python does not
        return None
    good = sum((NO_TEXT not in line or encoding in CYRILLIC) and _is_text(line, encoding) for line in lines)
    return encoding if 2 * good > len(lines) else None


def _is_text(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def open_text(source: str, error: type[UserError], encoding: str = AUTO) -> Utf8Stream:
    """Open a text file for streaming.

    Raises:
        StorageError: if it cannot be read.
        UserError: of the given class, if it is not a text.
    """
    blocks = unpacked_blocks(source, error)
    first = next(blocks, b"")
    check_packed(source, first, error)
    return Utf8Stream(itertools.chain([first], blocks), encoding)


def unpacked_blocks(source: str, error: type[UserError]) -> Iterator[bytes]:
    """Yield the bytes of a file block by block, those of a compressed one unpacked.

    Raises:
        StorageError: if it cannot be read.
        UserError: of the given class, if it is compressed and damaged.
    """
    with storage.open_input(source) as stream:
        first = stream.read(BLOCK_BYTES)
        compression = next((name for magic, name in COMPRESSED.items() if first.startswith(magic)), None)
        if compression is None:
            while first:
                yield first
                first = stream.read(BLOCK_BYTES)
            return
    with storage.open_input(source) as stream:
        try:
            unpacked = pa.CompressedInputStream(stream, compression)
            while block := unpacked.read(BLOCK_BYTES):
                yield block
        except (OSError, pa.ArrowException) as wrong:
            raise error(f"{source}: a damaged {compression} file ({' '.join(str(wrong).split())[:200]})") from None


def is_compressed(source: str) -> bool:
    """Tell whether a file is compressed, by its first bytes."""
    with storage.open_input(source) as stream:
        return bool(stream.read(4).startswith(tuple(COMPRESSED)))


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut blocks so that each ends with a line, unless the line is longer than a block."""
    rest = b""
    for block in blocks:
        head, end, rest = (rest + block).rpartition(b"\n")
        if len(rest) >= BLOCK_BYTES:
            head, end, rest = head + end + rest, b"", b""
        if head or end:
            yield head + end
    if rest:
        yield rest


def decode(data: bytes, source: str, error: type[UserError], encoding: str = AUTO) -> str:
    """Return the text of a whole file.

    Raises:
        UserError: of the given class, if it is not a text.
    """
    check_packed(source, data, error)
    stream = Utf8Stream([data], encoding)
    parts = []
    while block := stream.read():
        parts.append(block)
    try:
        text = b"".join(parts).decode()
        stream.warn_if_assumed(source)
        return text
    except UnicodeDecodeError as wrong:
        line = b"".join(parts)[: wrong.start].count(b"\n") + 1
        raise error(f"{source}, line {line}: not {stream.encoding_name}; save it as a text file in UTF-8") from None


def split_lines(text: str) -> list[str]:
    """Return the lines of a text without their ends: LF, CR LF or CR, and nothing else."""
    return LINE_ENDS.sub("\n", text).removesuffix("\n").split("\n") if text else []


def read_lines(stream: Utf8Stream) -> Iterator[Line]:
    """Yield the lines of a text file, also those that cannot be read."""
    number, rest, too_long = 0, b"", False
    while True:
        block = stream.read()
        parts = (rest + block).splitlines(keepends=True)  # of bytes: at LF, CR LF and CR alone
        rest = b""
        if block and parts and not parts[-1].endswith(b"\n"):
            rest = parts.pop()
        for part in parts:
            number += 1
            if too_long or len(part) > MAX_LINE_BYTES:
                yield number, "", RowError("bad_row", f"a line of more than {MAX_LINE_BYTES} bytes")
            else:
                yield _line(number, part, stream)
            too_long = False
        if len(rest) > MAX_LINE_BYTES:
            rest, too_long = rest[-1:], True
        if not block:
            return


def _line(number: int, data: bytes, stream: Utf8Stream) -> Line:
    data = data.removeprefix(codecs.BOM_UTF8)  # stands within a file where two were put together
    try:
        return number, data.decode(), None
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line is not {stream.encoding_name}"
        return number, data.decode("utf-8", "replace"), RowError("bad_encoding", reason)
