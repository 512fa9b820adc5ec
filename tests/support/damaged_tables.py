"""Damaged catalogues: whether an import balances in each, and how many of the undamaged rows come through."""

import csv
import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.errors import UserError

WORDS = ["Shirt", "Café", "Größe", "12\" pipe", "the \"best\"", "a, b; c", "two\nlines", "three\r\nlines\nof it",
         "x\ty", "女士", "O'Neil", "½", "-", "Monitor 24\""]  # fmt: skip
LATIN_1 = [word for word in WORDS if word.isascii() or word.encode("cp1252", "ignore").decode("cp1252") == word]
Edit = tuple[int, int, bytes]
"""Where bytes are taken out, how many, and what is put there."""


@dataclass
class Drawn:
    """A catalogue, its rows, and where each of them stands."""

    kind: str
    head: bytes
    rows: list[dict[str, str]]
    parts: list[bytes]

    @property
    def data(self) -> bytes:
        """The whole file."""
        return self.head + b"".join(self.parts)


def draw(rng: random.Random) -> Drawn:
    """Draw a catalogue of some rows."""
    kind = rng.choice(["csv", "csv", "jsonl"])
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "cp1252"])
    words = WORDS if encoding != "cp1252" else LATIN_1
    rows = [
        {
            "id": f"W-{number}",
            "title": " ".join(rng.choice(words) for _ in range(rng.randint(1, 4))),
            "price": f"{rng.randint(1, 999)}.50",
            "image": f"{number}.jpg",
            "category": rng.choice(["A > B", "A > C", "D"]),
        }
        for number in range(rng.randint(5, 80))
    ]
    plain = encoding.removesuffix("-sig")
    mark = b"\xef\xbb\xbf" if encoding == "utf-8-sig" else b""
    if kind == "jsonl":
        return Drawn(kind, mark, rows, [(json.dumps(row, ensure_ascii=False) + "\n").encode(plain) for row in rows])
    separator, end = rng.choice(",;\t"), rng.choice(["\n", "\r\n"])
    quoting: Literal[0, 1] = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])

    def line(cells: list[str]) -> bytes:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=quoting).writerow(cells)
        return buffer.getvalue().encode(plain)

    return Drawn(kind, mark + line(list(rows[0])), rows, [line(list(row.values())) for row in rows])


def _cut(rng: random.Random, data: bytes) -> Edit:
    at = rng.randrange(len(data))
    return at, len(data) - at, b""


def _insert(*choices: bytes) -> Callable[[random.Random, bytes], Edit]:
    return lambda rng, data: (rng.randrange(len(data)), 0, rng.choice(choices))


def _over(*choices: bytes) -> Callable[[random.Random, bytes], Edit]:
    """Replace one of some bytes that the file has."""

    def edit(rng: random.Random, data: bytes) -> Edit:
        places = [at for at, byte in enumerate(data) if bytes([byte]) in choices]
        return (rng.choice(places), 1, b"") if places else (0, 0, b"")

    return edit


def _flip(rng: random.Random, data: bytes) -> Edit:
    return rng.randrange(len(data)), 1, bytes([rng.randrange(256)])


def _remove(rng: random.Random, data: bytes) -> Edit:
    at = rng.randrange(len(data))
    return at, rng.randint(1, 200), b""


def _noise(rng: random.Random, data: bytes) -> Edit:
    return rng.randrange(len(data)), 0, rng.randbytes(rng.randint(1, 300))


DAMAGES: dict[str, Callable[[random.Random, bytes], Edit]] = {
    "cut": _cut,
    "quote put in": _insert(b'"'),
    "quote taken out": _over(b'"'),
    "text after a quote": _insert(b'" x', b'"x"', b'""x'),
    "byte changed": _flip,
    "bytes taken out": _remove,
    "noise put in": _noise,
    "zero bytes": _insert(b"\0", b"\0" * 50),
    "line end put in": _insert(b"\n", b"\r\n", b"\r", b"\n\n"),
    "line end taken out": _over(b"\n"),
    "half a character": _insert(b"\xc3", b"\xe2\x82", b"\xff"),
    "line break of another kind": _insert("\u2028".encode(), b"\x0b", "\x85".encode()),
}  # fmt: skip


@dataclass
class Outcome:
    """What became of one damaged file."""

    kind: str
    damage: str
    refused: str = ""
    """The message where the file was refused as a whole."""
    failure: str = ""
    """What must not happen: another exception, or an account that is wrong."""
    whole: int = 0
    """Rows that no damage touched."""
    through: int = 0
    """How many of them came through as they were."""
    counts: dict[str, Any] = field(default_factory=dict)


def damage(rng: random.Random, drawn: Drawn) -> tuple[str, bytes, list[dict[str, str]]]:
    """Damage a catalogue; return how, the file, and the rows that were not touched."""
    name = rng.choice(list(DAMAGES))
    data = drawn.data
    edits = sorted((DAMAGES[name](rng, data) for _ in range(1 if name == "cut" else rng.randint(1, 3))), reverse=True)
    whole = []
    end = len(drawn.head)
    unnamed = edits[-1][0] < end  # a damaged header says nothing sure of any row
    for row, part in zip([] if unnamed else drawn.rows, drawn.parts, strict=not unnamed):
        begin, end = end, end + len(part)
        # Its first byte is where something put in ends the row above; its last one, where it begins the row below.
        if not any(at <= end and at + taken >= begin for at, taken, _ in edits):
            whole.append(row)
    for at, taken, put in edits:
        data = data[:at] + put + data[at + taken :]
    return name, data, whole


def check(seed: int, folder: Path) -> Outcome:
    """Draw, damage and import a file, and compare."""
    rng = random.Random(seed)
    drawn = draw(rng)
    name, data, whole = damage(rng, drawn)
    source, output = folder / f"{seed}.{drawn.kind}", folder / f"{seed}"
    source.write_bytes(data)
    outcome = Outcome(drawn.kind, name)
    try:
        import_catalog(ImportConfig(source=str(source), output=str(output), path_separator=">"))
    except UserError as error:
        outcome.refused = str(error)
        return outcome
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {error}"
        return outcome
    counts = outcome.counts = json.loads((output / "run.json").read_text())["counts"]
    products = {row["product_id"]: row for row in _rows(output / "products")}
    quarantine = _rows(output / "quarantine")
    if len(products) != counts["products"] or len(quarantine) != sum(counts["quarantined"].values()):
        outcome.failure = f"the tables have {len(products)} products and {len(quarantine)} in quarantine: {counts}"
    elif counts["records"] != counts["products"] + counts["joined"] + counts["blank"] + len(quarantine):
        outcome.failure = f"the records do not balance: {counts}"
    elif drawn.kind == "jsonl" and counts["records"] != len(data.splitlines()):
        outcome.failure = f"{len(data.splitlines())} lines: {counts}"
    outcome.whole = len(whole)
    outcome.through = sum(_same(products.get(row["id"]), row) for row in whole)
    return outcome


def _rows(table: Path) -> list[dict[str, Any]]:
    return pq.read_table(table).to_pylist() if table.exists() else []


def _same(product: dict[str, Any] | None, row: dict[str, str]) -> bool:
    return (
        product is not None
        and product["title"] == row["title"].replace("\r\n", "\n")
        and product["price"] == float(row["price"])
        and product["image_uris"][0].endswith(f"/{row['image']}")
        and product["category_path"] == row["category"].split(" > ")
    )


def outcomes(files: int, seed: int) -> Iterator[Outcome]:
    """Yield what became of each of some damaged files."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            yield check(seed * 1_000_003 + number, Path(folder))
