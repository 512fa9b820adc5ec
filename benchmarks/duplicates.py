"""Duplicate pictures: what is found again, what is taken for another, and the cost of a million.

    python -m benchmarks.duplicates --catalog CATALOG --output FOLDER [--rows 100000 1000000]

The catalogue's pictures are fingerprinted; every twelfth is also cropped, recompressed and so on, and
must be found again. Pairs of different products that are found are drawn on a contact sheet, nearest
first, for a person to judge. Then fingerprints are made up: random ones, near pairs among them, and
placeholders that each twentieth product shows.
"""

import argparse
import hashlib
import io
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance

from atlas_ray.catalog.split import SPLITS, resplit
from atlas_ray.duplicates.detect import (
    FINGERPRINTED,
    DuplicateConfig,
    find_duplicates,
    fingerprint_block,
    in_memory,
)
from atlas_ray.duplicates.pairs import near_pairs
from atlas_ray.duplicates.run import on_ray
from atlas_ray.duplicates.sizes import BITS, GRID_PX, WORDS, Fingerprints
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.runtime.outcomes import KEYS, with_errors
from atlas_ray.runtime.session import connect
from tests.support.fingerprints import made_up

BATCH = 256
BLOCK_ROWS = 20_000
PAIRS_SHOWN = 60
SHARES = (0.65, 0.05, 0.30)


def encoded(picture: Image.Image, kind: str = "JPEG", quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def resized(picture: Image.Image, factor: float) -> Image.Image:
    return picture.resize((round(picture.width * factor), round(picture.height * factor)))


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    )


VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG of quality 50": lambda picture: encoded(picture, quality=50),
    "WebP of quality 60": lambda picture: encoded(picture, "WEBP", 60),
    "half the size": lambda picture: encoded(resized(picture, 0.5)),
    "three times the size": lambda picture: encoded(resized(picture, 3)),
    "2% cropped, around": lambda picture: encoded(cropped(picture, 0.01, 0.01, 0.01, 0.01)),
    "2% cropped, one corner": lambda picture: encoded(cropped(picture, 0.02, 0, 0, 0.02)),
    "15% brighter": lambda picture: encoded(ImageEnhance.Brightness(picture).enhance(1.15)),
    "20% darker": lambda picture: encoded(ImageEnhance.Brightness(picture).enhance(0.8)),
}


def read_catalog(catalog: str) -> tuple[pa.Table, pa.Table]:
    """Return the catalogue's products, and its pictures fingerprinted; those that cannot be read are left out."""
    products, images = (
        pa.concat_tables(
            pq.read_table(storage.locate(uri).path, filesystem=storage.locate(uri).filesystem)
            for uri in storage.files(storage.join(catalog, name), suffix=".parquet")
        )
        for name in ("products", "images")
    )
    blocks = []
    with ObjectReader(threads=4) as reader:
        for start in range(0, len(images), BATCH):
            block = images.slice(start, BATCH)
            contents = [c if isinstance(c, bytes) else b"" for c in reader.read_many(block["image_uri"].to_pylist())]
            fetched = block.select(list(KEYS)).append_column("bytes", pa.array(contents, pa.large_binary()))
            sha256 = pa.array([hashlib.sha256(content).hexdigest() for content in contents])
            blocks.append(fingerprint_block(with_errors(fetched.append_column("sha256", sha256), "fetch", {})))
    pictures = pa.concat_tables(blocks)
    return products, pictures.filter(pictures["error_code"].is_null())


def words(pictures: pa.Table) -> Fingerprints:
    """Return the fingerprints, (pictures, WORDS)."""
    return np.frombuffer(b"".join(pictures["fingerprint"].to_pylist()), np.uint64).reshape(-1, WORDS)


def measure_recall(pictures: pa.Table, max_distance: int) -> None:
    """Print how far variants lie from their originals."""
    from atlas_ray.duplicates.fingerprints import fingerprint
    from atlas_ray.modalities.pictures import decode_batch

    sample = pictures.take(pa.array(np.arange(0, len(pictures), 12)))
    own = words(sample)
    uris = sample["image_uri"].to_pylist()
    print(f"variants of {len(uris)} pictures: share within {max_distance} of {BITS} bits; distances")
    with ObjectReader(threads=4) as reader:
        for name, change in VARIANTS.items():
            found = []
            for start in range(0, len(uris), BATCH):
                changed = [
                    change(Image.open(io.BytesIO(data)).convert("RGB"))
                    for data in reader.read_many(uris[start : start + BATCH])
                    if isinstance(data, bytes)
                ]
                found.append(fingerprint(decode_batch(changed, GRID_PX)[0]))
            distance = np.bitwise_count(np.concatenate(found) ^ own).sum(axis=1)
            near = (distance <= max_distance).mean()
            print(f"  {name:24s} {near:7.2%}   median {np.median(distance):.0f}, 99% {np.quantile(distance, 0.99):.0f}")


def draw_pairs(products: pa.Table, pictures: pa.Table, max_distance: int, output: str) -> None:
    """Print how many pairs of pictures are near, and draw some on a contact sheet, nearest first."""
    from atlas_ray.reports.contact_sheet import Cell, Section, write_contact_sheet

    distinct, rows = np.unique(words(pictures), axis=0, return_index=True)
    pairs = near_pairs(distinct, max_distance + 8, enough=1000)
    twins = len(pictures) - len(distinct)
    print(f"{len(pictures)} pictures; {twins} have the fingerprint of another; pairs by distance, from 1:")
    print(f"  {np.bincount(pairs.distance, minlength=max_distance + 9)[1:].tolist()}")
    uris, owners = pictures["image_uri"].to_pylist(), pictures["product_id"].to_pylist()
    paths = dict(zip(products["product_id"].to_pylist(), products["category_path"].to_pylist(), strict=True))
    sections = []
    with ObjectReader(threads=4) as reader:
        for low, high in ((1, max_distance // 2), (max_distance // 2 + 1, max_distance)):
            chosen = np.flatnonzero((pairs.distance >= low) & (pairs.distance <= high))
            some = chosen[:: max(1, len(chosen) // PAIRS_SHOWN)][:PAIRS_SHOWN]
            cells = [
                Cell(reader.read(uris[row]), f"{pairs.distance[pair]}: {owners[row]} {paths[owners[row]][-1]}")
                for pair in some
                for row in (rows[pairs.left[pair]], rows[pairs.right[pair]])
            ]
            sections.append(Section(f"{len(chosen)} pairs of {low} to {high} bits", cells))
    write_contact_sheet(output, sections)


def measure_catalog(products: pa.Table, pictures: pa.Table, config: DuplicateConfig, output: str) -> None:
    """Print the groups of the catalogue, and what they do to its split."""
    report = find_duplicates(in_memory(pictures), config)
    report.write(output)
    sizes = Counter(report.groups["group"].to_pylist())
    kinds = Counter(report.duplicates["kind"].to_pylist())
    print(f"{len(sizes)} groups of {len(report.groups)} products, the largest of {max(sizes.values(), default=0)}")
    print(f"  pictures: exact {kinds['exact']}, near {kinds['near']}; placeholders: {len(report.placeholders)}")
    split_of = dict(zip(products["product_id"].to_pylist(), products["split"].to_pylist(), strict=True))
    sides: dict[int, set[str]] = {}
    for row in report.groups.to_pylist():
        sides.setdefault(row["group"], set()).add(split_of[row["product_id"]])
    straddling = sum(len(found) > 1 for found in sides.values())
    tested = sum({"train", "test"} <= found for found in sides.values())
    print(f"{straddling} groups lie in several splits, {tested} of them in train and test")
    blank = products.drop_columns("split").append_column("split", pa.nulls(len(products), pa.string()))
    for name, column in (
        ("given", products["split"]),
        ("kept", resplit(products, report.groups, SHARES, 0)),
        ("anew", resplit(blank, report.groups, SHARES, 0)),
    ):
        counted = Counter(column.to_pylist())
        print(f"  split {name}: {', '.join(f'{side} {counted[side]}' for side in SPLITS)}, none {counted[None]}")


def measure_cost(rows: int, config: DuplicateConfig) -> None:
    """Print the time and this process's memory of finding duplicates among made-up fingerprints, by a shuffle."""
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        for start in range(0, rows, BLOCK_ROWS):
            block = made_up(start, min(BLOCK_ROWS, rows - start), rows)
            pq.write_table(block, f"{scratch}/part-{start // BLOCK_ROWS:05d}.parquet")
        prints = open_table(scratch, FINGERPRINTED)
        connect()
        before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        started = time.perf_counter()
        report = find_duplicates(on_ray(prints), config)
        wall_s = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rows} made-up fingerprints: {wall_s:.1f} s, peak memory {before_mib:.0f} MiB before, "
        f"{peak_mib:.0f} MiB with; {len(report.groups)} products in groups ({rows // 5} expected), "
        f"placeholders {report.placeholders.select(['images', 'products']).to_pylist()} (2 of {rows // 20} expected)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", help="an imported catalogue; its part is left out without it")
    parser.add_argument("--output", default="duplicates", help="for the contact sheet and the tables")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--max-distance", type=int, default=DuplicateConfig().max_distance)
    options = parser.parse_args()
    config = DuplicateConfig(max_distance=options.max_distance)
    if options.catalog:
        products, pictures = read_catalog(options.catalog)
        measure_recall(pictures, config.max_distance)
        draw_pairs(products, pictures, config.max_distance, options.output)
        measure_catalog(products, pictures, config, options.output)
    for rows in options.rows:
        measure_cost(rows, config)


if __name__ == "__main__":
    main()
