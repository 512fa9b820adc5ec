"""The comparison of two scoring runs, for a person: a page with examples, and terminal output."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.metrics import PathRow
from atlas_ray.reports.charts import draw_support
from atlas_ray.reports.page import (
    Cell,
    Share,
    document,
    gallery,
    heading,
    paragraph,
    section,
    summary,
    table,
    thumbnails,
)
from atlas_ray.reports.terminal import wide_console
from atlas_ray.reports.words import comparison_verdict, headline_split
from atlas_ray.runs.tally import PAIR_SEPARATOR
from atlas_ray.schemas import path_keys
from atlas_ray.taxonomy import format_path

SHOWN_MOVES = 50
MOVES_WITH_EXAMPLES, EXAMPLES = 24, 6
"""On the page: for the moves of the most products, those of which the second run is surest."""
SHOWN = 10
"""Number of moves that the terminal shows, and of products of one run alone that the page shows."""
ACCURACY = ("split", "products", "before", "after", "difference, points (95% interval)", "won", "lost")
MOVES = ("from", "to", "products", "probability before", "probability after", "labelled", "right before", "right after")


def write_comparison_page(output: str) -> None:
    """Write `comparison.html` from the tables beside it; it requests nothing from outside, and is under 5 MB.

    Args:
        output: Where `atlas_ray.evaluation.comparison` left `comparison.json`, `moves.parquet` and `products.parquet`.
    """
    account, moves = _read(output)
    shown = moves.slice(0, MOVES_WITH_EXAMPLES)
    examples, alone = _examples(output, shown)
    title = f"Moves: the {SHOWN_MOVES} most frequent" if len(moves) > SHOWN_MOVES else "Moves"
    parts = [
        summary([f"{_capital(comparison_verdict(account))}.", *map(_capital, _facts(account))], _tiles(account)),
        section("Accuracy", table(ACCURACY, _accuracy_rows(account))),
        *_support(account),
        section(title, table(MOVES, [_move_row(row) for row in moves.slice(0, SHOWN_MOVES).to_pylist()])),
    ]
    galleries = []
    for move, rows in zip(shown.to_pylist(), examples, strict=True):
        cells = list(zip(thumbnails([row["image_uri"] for row in rows]), map(_caption, rows), strict=True))
        galleries += [heading(f"{_written(move['from'])} → {_written(move['to'])}: {move['products']}"), gallery(cells)]
    if galleries:
        parts.append(section("Products that moved", *galleries))
    for change, run in (("only_before", "first"), ("only_after", "second")):
        if alone[change]:
            listed = table(("product", "path"), alone[change])
            parts.append(section(f"Products that the {run} run alone has", listed))
    storage.write_bytes(storage.join(output, "comparison.html"), document("Two scoring runs", parts).encode())


def _support(account: Mapping[str, Any]) -> list[str]:
    """Return the plot of both runs' paths, if both were evaluated."""
    split = headline_split(account["accuracy"])
    before, after = (_path_rows(account[side]["run"], split) for side in ("before", "after"))
    if not before or not after:
        return []
    text = (
        f"Each point is a category path of the split {split}, as `evaluate` measured it: a ring of the first run, a "
        "disc of the second."
    )
    return [section("F-score and support", paragraph(text), draw_support(after, before))]


def _path_rows(run: str, split: str) -> list[PathRow]:
    """Return the figures of each path that `evaluate` left beside a run; [] if it has not been evaluated."""
    uri = storage.join(run, "evaluation", "paths.parquet")
    if not storage.exists(uri):
        return []
    rows = storage.read_table(uri).to_pylist()
    names = ("precision", "recall", "f1", "support", "predicted")
    return [
        PathRow(tuple(row["category_path"]), *(row[name] for name in names)) for row in rows if row["split"] == split
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tiles(account: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    products, accuracy = account["products"], account["accuracy"]
    tiles: list[tuple[str, Cell]] = []
    if accuracy:
        paired = accuracy[headline_split(accuracy)]
        difference = Share(paired["difference"], (paired["low"], paired["high"]), signed=True)
        tiles = [
            ("right before", Share(paired["before"])),
            ("right after", Share(paired["after"])),
            ("difference, points", difference),
        ]
    if account["agreement"] is not None:
        tiles.append(("of the products stayed", Share(account["agreement"])))
    return [*tiles, ("products moved", products["moved"])]


def print_comparison(output: str) -> None:
    """Print the moves, and which run is right more often."""
    account, moves = _read(output)
    console = wide_console()
    for fact in _facts(account):
        console.print(fact)
    for head, rows in (
        (ACCURACY, _accuracy_rows(account)),
        (MOVES, [_move_row(row) for row in moves.slice(0, SHOWN).to_pylist()]),
    ):
        if rows:
            console.print(_terminal_table(head, rows))
    for name in ("comparison.html", "moves.parquet", "products.parquet", "comparison.json"):
        console.print(f"  {output}/{name}")
    console.print(comparison_verdict(account))


def _read(output: str) -> tuple[dict[str, Any], pa.Table]:
    account = json.loads(storage.read_bytes(storage.join(output, "comparison.json")))
    return account, storage.read_table(storage.join(output, "moves.parquet"))


def _facts(account: Mapping[str, Any]) -> list[str]:
    """Return sentences about the runs, and about how many products moved."""
    before, after, products = account["before"], account["after"], account["products"]
    facts = [
        f"before: {before['run']}, model {before['model_id']}",
        f"after: {after['run']}, model {after['model_id']}",
    ]
    for name, noun in (("catalog", "catalogues"), ("taxonomy_id", "taxonomies")):
        if name in account["differs"]:
            facts.append(f"the runs are of different {noun}: {before[name]} and {after[name]}")
    if "taxonomy_id" in account["differs"]:
        facts.append("each run is judged by its own labels, and a category that was renamed counts as moved")
    for run, name in ((before, "before"), (after, "after")):
        if run["above_leaf"]:
            text = f"{run['above_leaf']} products {name} have an answer above their leaf, or none; the leaf is compared"
            facts.append(text)
    agreement = account["agreement"]
    share = "" if agreement is None else f" ({agreement:.1%} of those in both runs)"
    facts.append(f"{products['same']} products stayed{share}, {products['moved']} moved in {account['moves']} ways")
    if products["only_before"] or products["only_after"]:
        facts.append(f"{products['only_before']} products only before, {products['only_after']} only after")
    if account["relabelled"] and "taxonomy_id" not in account["differs"]:
        facts.append(f"{account['relabelled']} products have another label after, which counts")
    if account["unjudged"]:
        facts.append(f"{account['unjudged']} products have a label in one run alone, and are left out of the accuracy")
    if account["fitted"]:
        facts.append(
            f"{account['fitted']} labelled products outside the split 'train' are left out of the accuracy: one of the "
            "models was fitted on them"
        )
    facts += account["notes"]
    return facts


def _accuracy_rows(account: Mapping[str, Any]) -> list[list[Cell]]:
    return [
        [
            split,
            paired["products"],
            Share(paired["before"]),
            Share(paired["after"]),
            Share(paired["difference"], (paired["low"], paired["high"]), signed=True),
            paired["won"],
            paired["lost"],
        ]
        for split, paired in account["accuracy"].items()
    ]


def _move_row(move: Mapping[str, Any]) -> list[Cell]:
    sure = (Share(move[name]) for name in ("probability_before", "probability_after"))
    counts = (move[name] for name in ("labelled", "right_before", "right_after"))
    return [_written(move["from"]), _written(move["to"]), move["products"], *sure, *counts]


def _written(path: Sequence[str] | None) -> str:
    return format_path(path) if path else "(no answer)"


def _caption(row: Mapping[str, Any]) -> str:
    sure = [
        f"{row[name]:.0%}" if row[name] is not None else "-" for name in ("probability_before", "probability_after")
    ]
    truth = row["true_category_path"]
    right = [side for side in ("before", "after") if row[f"right_{side}"]]
    said = "both are" if len(right) == 2 else f"{right[0]} is" if right else ""
    label = f", {said} right" if said else f", labelled {format_path(truth)}" if truth else ""
    return f"{sure[0]} → {sure[1]}{label}; {row['product_id']}"


def _examples(output: str, moves: pa.Table) -> tuple[list[list[dict[str, Any]]], dict[str, list[list[str]]]]:
    """Read the changed products once, some rows at a time.

    Returns:
        For each move its surest products, and for `only_before` and `only_after` some ids with their paths.
    """
    changed = open_table(storage.join(output, "products.parquet"), pa.schema([]), others=True)
    pairs = _pairs(moves["from"], moves["to"])
    kept: list[pa.Table] = [changed.schema.empty_table()] * len(moves)
    alone: dict[str, list[list[str]]] = {"only_before": [], "only_after": []}
    for rows in changed.batches():
        for change, found in alone.items():
            path = change.replace("only", "category_path")
            some = rows.filter(pc.equal(rows["change"], change)).slice(0, SHOWN - len(found)).to_pylist()
            found += [[row["product_id"], _written(row[path])] for row in some]
        rows = rows.filter(pc.equal(rows["change"], "moved"))
        move = pc.index_in(_pairs(rows["category_path_before"], rows["category_path_after"]), pairs)
        for number in pc.unique(move.drop_null()).to_pylist():
            both = pa.concat_tables([kept[number], rows.filter(pc.equal(move, number))])
            order = [("probability_after", "descending"), ("product_id", "ascending")]
            kept[number] = both.take(pc.sort_indices(both, order).slice(0, EXAMPLES))
    return [rows.to_pylist() for rows in kept], alone


def _pairs(before: pa.ChunkedArray, after: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return both paths as one string, "" standing for no answer."""
    keys = [path_keys(paths).fill_null("") for paths in (before, after)]
    return pc.binary_join_element_wise(*keys, PAIR_SEPARATOR)


def _terminal_table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    drawn = Table(*head)
    for place, column in enumerate(drawn.columns):
        numbers = any(isinstance(row[place], int | float | Share) for row in rows)
        column.justify = "right" if place and numbers else "left"
    for row in rows:
        drawn.add_row(*(_cell(cell) for cell in row))
    return drawn


def _cell(value: Cell) -> str:
    if isinstance(value, Share) and value.range:
        return f"{value} ({value.range})"
    return "" if value is None else str(value)
