"""A catalogue described for a person: a page, and a line on the terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atlas_ray.io import storage
from atlas_ray.reports.charts import draw_histogram
from atlas_ray.reports.page import Cell, Share, document, paragraph, section, summary, table
from atlas_ray.reports.words import counted
from atlas_ray.taxonomy import format_path

SHOWN_PATHS, SHOWN_STORES, SHOWN_LANGUAGES = 2_000, 20, 20
FEW_PRODUCTS = 20
"""Products below which a path is hard to learn."""
EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000, 10_000_000)
"""The smallest number of products of each column of the histogram."""
PRICES = (
    "currency", "products", "smallest", "a quarter below", "half below", "three quarters below", "largest",
)  # fmt: skip
NAMES = {"image_uris": "picture", "category_path": "label"}
"""Columns of the products table as a page calls them."""
MAX_CODE = 3
"""Letters of a language's code; a longer name stands for texts of which none is told."""
LANGUAGES = {
    "ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "kn": "Kannada", "ko": "Korean",
    "ml": "Malayalam", "mr": "Marathi", "nl": "Dutch", "no": "Norwegian", "pa": "Punjabi", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def write_stats_page(stats: Any, output: str) -> None:
    """Write the page of a catalogue (`atlas_ray.catalog.stats.CatalogStats`); it asks for nothing from outside."""
    paths = section(
        "Category paths",
        _cut(len(stats.paths), SHOWN_PATHS, "paths, those with most products first"),
        table(("path", "products", "of the labelled", "pictures", "train", "val", "test"), _path_rows(stats)),
    )
    sizes = [one.products for one in stats.paths]
    stores = stats.stores.most_common(SHOWN_STORES)
    share = ("products", "share")
    parts = [
        summary([f"{stats_verdict(stats)}.", *_facts(stats)], _tiles(stats)),
        section("Products a path", draw_histogram(histogram(sizes), "products of a path", "paths")) if sizes else "",
        paths,
        section("What is missing", table(("column", "products without", "share"), _missing_rows(stats))),
        section("What a model can look at", table(("has", *share), _modality_rows(stats))),
        section("Labels a product", table(("labels", *share), _count_rows(stats.labels, stats.products))),
        section("Pictures a product", table(("pictures", *share), _count_rows(stats.images, stats.products))),
        section("What stands more than once", *map(paragraph, _repeat_notes(stats)), _repeats(stats)),
        section("Languages", paragraph(_language_note(stats)), table(("language", *share), _languages(stats))),
        section("Prices", table(PRICES, _price_rows(stats))),
        section(
            "Stores",
            _cut(len(stats.stores), SHOWN_STORES, "stores, those with most products first"),
            table(("store", *share), [[name, count, _share(count, stats.products)] for name, count in stores]),
        ),
    ]
    text = document("Catalogue", filter(None, parts), about=stats.catalog)
    storage.write_bytes(storage.absolute(output), text.encode("utf-8", "backslashreplace"))


def print_stats(stats: Any, output: str) -> None:
    """Print what a catalogue holds in a line, and where the page is."""
    print(stats_verdict(stats))
    print(f"  {output}")


def stats_verdict(stats: Any) -> str:
    """Say in a sentence what a catalogue holds."""
    if not stats.products:
        return "No product, so that there is nothing to tell"
    text = f"{counted(stats.products, 'product')} with {counted(stats.pictures, 'picture')}"
    if not stats.labelled:
        return f"{text}; none is labelled"
    return (
        f"{text}; {stats.labelled / stats.products:.1%} are labelled, in {counted(len(stats.paths), 'category path')}"
    )


def histogram(sizes: Sequence[int]) -> list[tuple[str, int]]:
    """Return how many paths have so many products, by range, from the smallest to the largest that there is."""
    counts = np.bincount(np.searchsorted(EDGES, sizes, side="right") - 1, minlength=len(EDGES))
    last = int(np.flatnonzero(counts)[-1])
    return [(_range(place), int(counts[place])) for place in range(last + 1)]


def _range(place: int) -> str:
    low, high = EDGES[place], EDGES[place + 1] - 1 if place + 1 < len(EDGES) else None
    return f"{low:,}+" if high is None else f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _facts(stats: Any) -> list[str]:
    """Return in sentences what a person should know before a training."""
    facts = []
    if stats.paths:
        few = sum(one.products < FEW_PRODUCTS for one in stats.paths)
        most = stats.paths[0]
        share = most.products / stats.labelled
        facts.append(
            f"The largest path, {format_path(most.path)}, has {share:.1%} of the labelled products"
            + (f"; {counted(few, 'path')} of {len(stats.paths):,} have fewer than {FEW_PRODUCTS}." if few else ".")
        )
        untrained = sum(not one.splits["train"] for one in stats.paths)
        if untrained:
            facts.append(f"{counted(untrained, 'path')} without a product in train, so that no model can learn them.")
    without = [
        f"{stats.missing[name] / stats.products:.1%} have no {NAMES.get(name, name)}"
        for name in ("image_uris", "title", "description")
        if stats.missing[name]
    ]
    if without:
        facts.append(f"Of the products {', '.join(without)}.")
    if stats.repeated_pictures.share:
        facts.append(
            f"{stats.repeated_pictures.share:.1%} of the pictures stand more than once; `atlas-ray duplicates` keeps "
            "their products on one side of the split."
        )
    if stats.repeated_ids.share:
        facts.append(
            "Some product ids stand more than once, which `train` refuses; `atlas-ray select` keeps the first."
        )
    return facts


def _tiles(stats: Any) -> list[tuple[str, Cell]]:
    known = stats.languages.total()
    first = [one for one in stats.languages.most_common() if len(one[0]) <= MAX_CODE][:1]
    return [
        ("products", stats.products),
        ("pictures", stats.pictures),
        ("category paths", len(stats.paths)),
        ("labelled", Share(stats.labelled / stats.products) if stats.products else None),
        (f"of a sample in {_language(first[0][0])}" if first else "", Share(first[0][1] / known) if first else None),
    ]


def _path_rows(stats: Any) -> list[list[Cell]]:
    return [
        [format_path(one.path), one.products, Share(one.products / stats.labelled), one.pictures]
        + [one.splits[side] for side in ("train", "val", "test")]
        for one in stats.paths[:SHOWN_PATHS]
    ]


def _missing_rows(stats: Any) -> list[list[Cell]]:
    return [[NAMES.get(name, name), count, _share(count, stats.products)] for name, count in stats.missing.items()]


def _modality_rows(stats: Any) -> list[list[Cell]]:
    counts = {" + ".join(names) or "nothing": count for names, count in stats.modalities.most_common()}
    return [[name, count, _share(count, stats.products)] for name, count in counts.items()]


def _count_rows(counts: Mapping[int, int], total: int) -> list[list[Cell]]:
    return [[number, count, _share(count, total)] for number, count in sorted(counts.items())]


def _repeats(stats: Any) -> str:
    rows: list[list[Cell]] = [
        [name, Share(found.share), found.most]
        for name, found in (
            ("product id", stats.repeated_ids), ("title", stats.repeated_titles), ("picture", stats.repeated_pictures),
        )
        if found.share is not None
    ]  # fmt: skip
    return table(("what", "rows that are not alone", "most often"), rows)


def _repeat_notes(stats: Any) -> list[str]:
    notes = []
    if stats.pictures and stats.hashed < stats.pictures:
        notes.append(
            f"{stats.pictures - stats.hashed:,} of the pictures have no hash of their content in the images table, and "
            "are told apart by their addresses: the same picture at two addresses is not seen here."
        )
    if not all(one.is_exact for one in (stats.repeated_ids, stats.repeated_titles, stats.repeated_pictures)):
        notes.append("Shares are of a part of the values, each with all of its rows.")
    return notes


def _language_note(stats: Any) -> str:
    return (
        f"Of the titles and descriptions of {counted(stats.languages.total(), 'product')}, which a hash of the id "
        "chooses. Short texts mislead: take a language of few products for a guess."
    )


def _languages(stats: Any) -> list[list[Cell]]:
    total = stats.languages.total()
    found: Counter[str] = stats.languages
    return [[_language(code), count, _share(count, total)] for code, count in found.most_common(SHOWN_LANGUAGES)]


def _language(code: str) -> str:
    return LANGUAGES.get(code, code)


def _price_rows(stats: Any) -> list[list[Cell]]:
    return [[one.currency, one.products, one.smallest, *one.quartiles, one.largest] for one in stats.prices]


def _share(count: int, total: int) -> Share:
    return Share(count / total if total else None)


def _cut(count: int, shown: int, what: str) -> str:
    return paragraph(f"{shown:,} of {count:,} {what}.") if count > shown else ""
