import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from atlas_ray.cli.main import main
from atlas_ray.duplicates.detect import (
    DUPLICATES,
    FINGERPRINTED,
    GROUPS,
    OUTCOMES,
    PLACEHOLDERS,
    DuplicateConfig,
    DuplicateReport,
    find_duplicates,
    fingerprint_block,
    fingerprint_column,
    in_memory,
)
from atlas_ray.duplicates.fingerprints import fingerprint
from atlas_ray.duplicates.pairs import Joined, NearPairs, near_pairs
from atlas_ray.duplicates.run import on_ray
from atlas_ray.duplicates.sizes import BITS, GRID_PX, WORDS, Fingerprints
from atlas_ray.errors import ConfigError, ItemError
from atlas_ray.formats.tables import open_table
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.runtime.outcomes import with_errors
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids
from atlas_ray.taxonomy import Taxonomy
from tests.support.fingerprints import made_up
from tests.support.parts import rows as catalog_rows


def scene(seed: int, width: int = 240, height: int = 320) -> Image.Image:
    """A picture with coarse and fine structure, as photographs have."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for cells, weight in ((4, 0.6), (12, 0.3), (40, 0.1)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        picture += weight * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(picture.astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "JPEG", quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def prints(pictures: list[bytes]) -> Fingerprints:
    pixels, refused = decode_batch(pictures, GRID_PX)
    assert not refused
    return fingerprint(pixels)


def flipped(words: Fingerprints, bits: int, rng: np.random.Generator) -> Fingerprints:
    """The same fingerprint, (WORDS,), with some of its bits turned."""
    turned = np.unpackbits(words.view(np.uint8))
    turned[rng.choice(len(turned), bits, replace=False)] ^= 1
    return np.packbits(turned).view(np.uint64)


VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "recompressed": lambda picture: encoded(picture, quality=50),
    "another format": lambda picture: encoded(picture, "WEBP", quality=60),
    "smaller": lambda picture: encoded(picture.resize((picture.width // 2, picture.height // 2))),
    "larger": lambda picture: encoded(picture.resize((picture.width * 3, picture.height * 3))),
    "cropped by 2%": lambda picture: encoded(picture.crop((2, 3, picture.width - 2, picture.height - 3))),
    "brighter": lambda picture: encoded(ImageEnhance.Brightness(picture).enhance(1.15)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_keeps_its_fingerprint(name: str) -> None:
    scenes = [scene(seed) for seed in range(20)]
    before = prints([encoded(picture) for picture in scenes])
    after = prints([VARIANTS[name](picture) for picture in scenes])
    distance = np.bitwise_count(before[:, None] ^ after[None]).sum(axis=2)  # (before, after)
    assert np.diag(distance).max() <= DuplicateConfig().max_distance
    assert distance[~np.eye(20, dtype=bool)].min() > 2 * DuplicateConfig().max_distance


@pytest.mark.long
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_reducing_a_picture_keeps_its_fingerprint(kind: str) -> None:
    sides = [160, 191, 200, 257, 259, 300, 383, 385, 511, 513, 600]
    files = [encoded(scene(at).resize((side, side)), kind) for at, side in enumerate(sides)]
    whole = [np.array(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    full = np.concatenate([fingerprint(torch.from_numpy(one).permute(2, 0, 1)[None]) for one in whole])
    distance = np.bitwise_count(full ^ prints(files)).sum(axis=1)
    assert distance.max() <= 2 * DuplicateConfig().max_distance // 3


def test_one_colour_has_no_fingerprint() -> None:
    noisy = torch.full((1, 3, 64, 64), 250, dtype=torch.uint8)
    noisy += torch.randint(0, 4, noisy.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert not fingerprint(noisy).any()
    noisy[:, :, 20:40, 20:30] = 200
    assert fingerprint(noisy).any()
    assert fingerprint(torch.zeros((0, 3, 32, 32), dtype=torch.uint8)).shape == (0, WORDS)


@pytest.mark.parametrize("max_distance", [0, 1, 8, 24])
def test_pairs_are_those_of_comparing_all(max_distance: int) -> None:
    rng = np.random.default_rng(max_distance)
    centres = rng.integers(0, 2**64, (40, WORDS), np.uint64)
    drawn = [flipped(centres[i % 40], int(rng.integers(0, 30)), rng) for i in range(400)]
    words = np.unique(np.array([*centres, *drawn, np.zeros(WORDS, np.uint64)]), axis=0)
    found = near_pairs(words, max_distance, enough=1000)
    distance = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2)
    left, right = np.nonzero(np.triu(distance <= max_distance, 1))
    assert list(zip(found.left, found.right, strict=True)) == list(zip(left, right, strict=True))
    assert found.distance.tolist() == distance[left, right].tolist()
    assert len(left) > 100 or max_distance < 8


def table(rows: list[tuple[str, str, str, Any]]) -> pa.Table:
    """Rows of product id, picture name, content and fingerprint."""
    products, names, contents, words = zip(*rows, strict=True)
    columns = {name: pa.nulls(len(rows), FINGERPRINTED.field(name).type) for name in FINGERPRINTED.names}
    columns |= {
        "image_id": image_ids(products, names),
        "product_id": products,
        "image_uri": names,
        "sha256": [hashlib.sha256(content.encode()).hexdigest() for content in contents],
        "fingerprint": fingerprint_column(np.array(words)),
    }
    return pa.table(columns, schema=FINGERPRINTED)


def groups_of(report: DuplicateReport) -> list[set[str]]:
    groups: dict[int, set[str]] = {}
    for row in report.groups.to_pylist():
        groups.setdefault(row["group"], set()).add(row["product_id"])
    return [groups[number] for number in sorted(groups)]


def test_groups_and_kinds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, two, three, four = rng.integers(0, 2**64, (4, WORDS), np.uint64)
    flat = np.zeros(WORDS, np.uint64)
    rows = [
        ("a", "a1", "same", one),
        ("b", "b1", "same", one),
        ("b", "b2", "b2", two),
        ("c", "c1", "c1", flipped(two, 5, rng)),  # a, b and c by two different pictures
        ("c", "c2", "c2", four),
        ("d", "d1", "d1", three),
        ("d", "d2", "d2", three),  # one product's own pictures are no duplicates
        ("e", "e1", "white", flat),
        ("f", "f1", "other white", flat),  # of one colour, other bytes
        ("g", "g1", "white", flat),
        ("h", "h1", "h1", flipped(four, 60, rng)),
    ]
    report = find_duplicates(in_memory(table(rows)), DuplicateConfig())
    assert groups_of(report) == [{"a", "b", "c"}, {"e", "g"}]
    assert report.duplicates.schema == DUPLICATES
    assert [tuple(row.values()) for row in report.duplicates.drop_columns("image_id").to_pylist()] == [
        (0, "a", "a1", "exact", 0),
        *sorted([(0, "b", "b1", "exact", 0), (0, "b", "b2", "near", 5)], key=lambda row: image_ids([row[1]], [row[2]])),
        (0, "c", "c1", "near", 5),
        (1, "e", "e1", "exact", 0),
        (1, "g", "g1", "exact", 0),
    ]
    assert len(report.placeholders) == 0
    turned = find_duplicates(in_memory(table(rows[::-1])), DuplicateConfig())
    assert turned == report
    report.write(str(tmp_path))
    assert pq.read_table(tmp_path / "groups.parquet").schema == GROUPS
    assert pq.read_table(tmp_path / "duplicates.parquet") == report.duplicates
    assert pq.read_table(tmp_path / "placeholders.parquet").schema == PLACEHOLDERS


class Joints(dict[Any, Any]):
    """What belongs together, transitively."""

    def root(self, thing: Any) -> Any:
        while self.setdefault(thing, thing) != thing:
            thing = self[thing]
        return thing

    def join(self, one: Any, other: Any) -> None:
        self[self.root(one)] = self.root(other)


def by_comparing_all(pictures: pa.Table, config: DuplicateConfig) -> tuple[list[Any], list[Any], list[Any]]:
    """The three tables, as rows, by comparing each picture with each other."""
    rows = list({row["image_id"]: row for row in pictures.to_pylist()}.values())
    rows.sort(key=lambda row: (row["product_id"], row["image_id"]))
    prints = {row["fingerprint"] for row in rows} - {bytes(BITS // 8)}
    distance = {
        frozenset((one, other)): (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()
        for one, other in itertools.combinations(prints, 2)
    }
    near = {pair: bits for pair, bits in distance.items() if bits <= config.max_distance}

    def owners(key: Callable[[Any], Any]) -> dict[Any, set[str]]:
        found: dict[Any, set[str]] = {}
        for row in rows:
            found.setdefault(key(row), set()).add(row["product_id"])
        return found

    def copies(pairs: Iterable[Any]) -> Joints:
        joints = Joints()
        for pair in pairs:
            joints.join(*pair)
        for row in rows:
            if row["fingerprint"] in prints:
                joints.join(row["fingerprint"], row["sha256"])
        return joints

    loose = copies(near)
    crowd = owners(lambda row: loose.root(row["sha256"]))
    tight = copies(
        pair
        for pair, bits in near.items()
        if len(crowd[loose.root(next(iter(pair)))]) <= config.max_products or bits <= config.max_distance // 2
    )
    shown_by = owners(lambda row: tight.root(row["sha256"]))
    of_file, of_print = owners(lambda row: row["sha256"]), owners(lambda row: row["fingerprint"])
    groups, found = Joints(), []
    placeholders: dict[Any, list[Any]] = {}
    for row in rows:
        copy = tight.root(row["sha256"])
        if len(shown_by[copy]) > config.max_products:
            least = placeholders.setdefault(copy, [row["image_id"], row["image_uri"], 0, len(shown_by[copy])])
            least[:2] = min(least[:2], [row["image_id"], row["image_uri"]])
            least[2] += 1
        elif len(shown_by[copy]) > 1:
            groups.join(("product", row["product_id"]), copy)
            exact = len(of_file[row["sha256"]]) > 1
            bits = [bits for pair, bits in near.items() if row["fingerprint"] in pair]
            bits += [0] if exact or len(of_print[row["fingerprint"]]) > 1 else []
            found.append((row, "exact" if exact else "near", min(bits)))
    number: dict[Any, int] = {}
    rows_of_all = [
        (
            number.setdefault(groups.root(("product", row["product_id"])), len(number)),
            *(row[name] for name in ("product_id", "image_id", "image_uri")),
            kind,
            bits,
        )
        for row, kind, bits in found
    ]
    rows_of_all.sort(key=lambda row: row[:3])
    pairs = list(dict.fromkeys((product, group) for group, product, *_ in rows_of_all))
    return rows_of_all, pairs, sorted(map(tuple, placeholders.values()), key=lambda row: (-row[3], row[0]))


def tuples(found: pa.Table) -> list[Any]:
    return [tuple(row.values()) for row in found.to_pylist()]


@st.composite
def look_alikes(draw: st.DrawFn) -> tuple[pa.Table, DuplicateConfig]:
    """Pictures of few motifs, files and products, some of one colour, some twice; limits that they reach."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    config = DuplicateConfig(max_distance=draw(st.sampled_from([0, 3, 8])), max_products=draw(st.integers(2, 6)))
    motifs = [np.zeros(WORDS, np.uint64), *rng.integers(0, 2**64, (draw(st.integers(1, 4)), WORDS), np.uint64)]
    files = [
        flipped(motifs[at], int(rng.integers(0, 7)), rng) if at else motifs[0]
        for at in rng.integers(0, len(motifs), draw(st.integers(1, 12)))
    ]
    shown = rng.integers(0, [draw(st.integers(1, 20)), len(files)], (draw(st.integers(1, 40)), 2))
    rows = [(f"{product:02d}", f"{at % 30}.jpg", str(file), files[file]) for at, (product, file) in enumerate(shown)]
    pictures = table(rows)
    _, first = np.unique(pictures["image_id"].to_numpy(), return_index=True)
    return pa.concat_tables([once := pictures.take(pa.array(first)), once.slice(0, draw(st.integers(0, 3)))]), config


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(look_alikes())
def test_the_tables_are_those_of_comparing_all(case: tuple[pa.Table, DuplicateConfig]) -> None:
    pictures, config = case
    report = find_duplicates(in_memory(pictures), config)
    duplicates, groups, placeholders = by_comparing_all(pictures, config)
    assert tuples(report.duplicates) == duplicates
    assert tuples(report.groups) == groups
    assert tuples(report.placeholders) == placeholders


def test_a_shuffle_finds_what_one_process_does(local_ray: None, tmp_path: Path) -> None:
    pictures = made_up(0, 400, 400)
    for part in range(2):
        pq.write_table(pictures.slice(200 * part, 200), tmp_path / f"part-{part}.parquet")
    config = DuplicateConfig(max_distance=20, max_products=15)
    alone = find_duplicates(in_memory(pictures), config)
    assert find_duplicates(on_ray(open_table(str(tmp_path), FINGERPRINTED), 3_000), config) == alone
    assert alone.placeholders["products"].to_pylist() == [20, 20]
    assert len(set(alone.groups["group"].to_pylist())) == 40


def test_the_pairs_that_span_tell_as_much() -> None:
    rng = np.random.default_rng(0)
    ends = rng.integers(0, 60, (2, 300))
    left, right = np.unique(np.sort(ends[:, ends[0] != ends[1]], axis=0), axis=1)
    pairs = NearPairs(left * 10**12, right * 10**12, rng.integers(1, 25, len(left)))
    joined = Joined()
    for part in np.array_split(np.concatenate([rng.permutation(len(left))] * 2), 7):  # each pair twice
        joined.add(NearPairs(pairs.left[part], pairs.right[part], pairs.distance[part]))
    few = joined.pairs()
    assert len(few) < 60

    def told(some: NearPairs, most: int) -> tuple[set[frozenset[int]], dict[int, int]]:
        joints = Joints()
        closest: dict[int, int] = {}
        for one, other, bits in zip(some.left.tolist(), some.right.tolist(), some.distance.tolist(), strict=True):
            if bits <= most:
                joints.join(one, other)
                for end in (one, other):
                    closest[end] = min(closest.get(end, bits), bits)
        parts: dict[int, set[int]] = {}
        for node in list(joints):
            parts.setdefault(joints.root(node), set()).add(node)
        return set(map(frozenset, parts.values())), closest

    for most in (1, 6, 24):
        assert told(few, most) == told(pairs, most)


@pytest.mark.long
def test_a_crowd_is_searched_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 3,000 is near to each other; a few pairs of each are looked for, and they still come together."""
    rng = np.random.default_rng(0)
    centre = rng.integers(0, 2**64, WORDS, np.uint64)
    crowd = table([(f"{n}", "a.jpg", f"{n}", flipped(centre, 6, rng)) for n in range(3000)])
    monkeypatch.setattr("atlas_ray.duplicates.pairs.MAX_PAIRS", 10_000)
    words = np.unique(np.frombuffer(b"".join(crowd["fingerprint"].to_pylist()), np.uint64).reshape(-1, WORDS), axis=0)
    assert len(near_pairs(words, 24, enough=100)) < 100_000
    report = find_duplicates(in_memory(crowd), DuplicateConfig())
    assert report.placeholders["products"].to_pylist() == [3000]
    assert len(report.groups) == 0


def test_no_duplicates_and_no_pictures() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 2**64, (2, WORDS), np.uint64)
    for pictures in (table([("a", "a", "a", one), ("b", "b", "b", two)]), FINGERPRINTED.empty_table()):
        report = find_duplicates(in_memory(pictures), DuplicateConfig())
        assert len(report.duplicates) == len(report.groups) == len(report.placeholders) == 0


@pytest.mark.long
def test_a_placeholder_joins_nothing() -> None:
    """20,000 products show one of three, recompressed in thousands of ways; two of them share a real picture too."""
    rng = np.random.default_rng(0)
    centre, own = rng.integers(0, 2**64, (2, WORDS), np.uint64)
    rows = [
        (f"{number:05d}", f"{number}-missing.jpg", f"{number % 3000}", flipped(centre, number % 3000 % 4, rng))
        for number in range(20_000)
    ]
    variants = {content: words for _, _, content, words in rows}
    rows = [(product, name, content, variants[content]) for product, name, content, _ in rows]
    rows += [("00007", "own.jpg", "own", own), ("11111", "copy.jpg", "copy", flipped(own, 3, rng))]
    report = find_duplicates(in_memory(table(rows)), DuplicateConfig())
    assert groups_of(report) == [{"00007", "11111"}]
    (placeholder,) = report.placeholders.to_pylist()
    assert (placeholder["images"], placeholder["products"]) == (20_000, 20_000)
    assert placeholder["image_uri"].endswith("-missing.jpg")


def test_a_chain_of_look_alikes_is_no_group() -> None:
    """Each of 300 pictures is near the next one; only true copies, far nearer, are joined then."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, WORDS, np.uint64)
    rows = []
    for number in range(300):
        rows.append((f"{number:03d}", "a.jpg", f"{number}", words))
        words = flipped(words, 20, rng)
    rows += [(f"copy of {number}", "b.jpg", f"copy {number}", flipped(rows[number][3], 3, rng)) for number in (50, 250)]
    report = find_duplicates(in_memory(table(rows)), DuplicateConfig(max_products=100))
    assert groups_of(report) == [{"050", "copy of 50"}, {"250", "copy of 250"}]
    assert len(report.placeholders) == 0
    assert len(groups_of(find_duplicates(in_memory(table(rows)), DuplicateConfig(max_products=400)))) == 1


def test_pictures_are_read_and_failures_kept(tmp_path: Path) -> None:
    picture = scene(1)
    (tmp_path / "good.jpg").write_bytes(encoded(picture))
    (tmp_path / "copy.webp").write_bytes(VARIANTS["another format"](picture))
    (tmp_path / "broken.jpg").write_bytes(encoded(picture)[:2000])
    names = ["good.jpg", "broken.jpg", "missing.jpg", "copy.webp"]
    uris = [str(tmp_path / name) for name in names]
    with ObjectReader(threads=2) as reader:
        contents = reader.read_many(uris)
    fetched = pa.table({"image_id": image_ids(names, uris), "product_id": names, "image_uri": uris})
    found = [content if isinstance(content, bytes) else None for content in contents]
    fetched = fetched.append_column("sha256", pa.array([c and hashlib.sha256(c).hexdigest() for c in found]))
    fetched = fetched.append_column("etag", pa.nulls(len(found), pa.string()))
    fetched = fetched.append_column("bytes", pa.array(found, pa.large_binary()))
    errors = {row: content for row, content in enumerate(contents) if isinstance(content, ItemError)}
    read = fingerprint_block(with_errors(fetched, "fetch", errors))
    assert read.schema == OUTCOMES
    assert read["error_code"].to_pylist() == [None, "truncated", "not_found", None]
    assert read["stage"].to_pylist() == [None, "decode", "fetch", None]
    assert [any(cell.as_py()) for cell in read["fingerprint"]] == [True, False, False, True]
    assert read["sha256"][0].as_py() == hashlib.sha256(encoded(picture)).hexdigest()
    report = find_duplicates(in_memory(read.filter(read["error_code"].is_null())), DuplicateConfig())
    assert groups_of(report) == [{"good.jpg", "copy.webp"}]
    assert set(report.duplicates["kind"].to_pylist()) == {"near"}


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="max_distance is 33"):
        DuplicateConfig(max_distance=33)


@pytest.mark.usefixtures("local_ray")
def test_a_catalogue_gets_a_split_without_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, products, images = tmp_path / "pictures", [], []
    pictures.mkdir()
    for number in range(20):
        copied = number - 10 if 10 <= number < 13 else number
        picture = scene(copied)
        name = f"{number:02d}"
        (pictures / name).write_bytes(encoded(picture) if copied == number else VARIANTS["another format"](picture))
        uri, split = str(pictures / name), "train" if number < 10 else "test"
        path = ["A", "B"]
        products.append({"product_id": name, "image_uris": [uri], "category_path": path, "split": split})
        images.append({"image_id": int(image_ids([name], [uri])[0]), "product_id": name, "image_uri": uri})
    catalog = tmp_path / "catalog"
    for table_name, content, schema in (("products", products, PRODUCTS), ("images", images, IMAGES)):
        (catalog / table_name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(content, schema=schema), catalog / table_name / "part-00000.parquet")
    (catalog / "taxonomy.json").write_text(Taxonomy([("A", "B")], name="two").to_json())

    def splits(output: Path, *flags: str) -> dict[str, str | None]:
        assert main(["duplicates", "--catalog", str(catalog), "--output", str(output), *flags]) == 0
        return {row["product_id"]: row["split"] for row in catalog_rows(output / "catalog", "products")}

    found = splits(tmp_path / "kept")
    assert "3 groups" in capsys.readouterr().out
    for number in range(20):
        alone = number >= 13 or 3 <= number < 10
        assert not alone or found[f"{number:02d}"] == ("train" if number < 10 else "test")
    # The test split stays as it was; what leaks into it is trained on no more.
    assert [found[name] for name in ("00", "10", "01", "11", "02", "12")] == [None, "test"] * 3
    assert not (tmp_path / "kept" / "fingerprints").exists()
    assert not (tmp_path / "kept" / "checkpoint").exists()
    written = (tmp_path / "kept" / "run.json").read_bytes()
    assert splits(tmp_path / "kept") == found  # done before, and the same again
    assert "holds this run, finished" in capsys.readouterr().out
    assert (tmp_path / "kept" / "run.json").read_bytes() == written
    splits(tmp_path / "kept", "--max-distance", "0")  # what counts as a duplicate is another thing
    assert json.loads((tmp_path / "kept" / "run.json").read_bytes())["config"]["max_distance"] == 0
    assert "finished" not in capsys.readouterr().out
    anew = splits(tmp_path / "anew", "--anew", "--split", "50/0/50")
    assert all(anew[f"{number:02d}"] == anew[f"{number + 10:02d}"] for number in range(3))
    assert Counter(anew.values()).keys() == {"train", "test"}
    assert anew != found
