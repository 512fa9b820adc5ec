"""Terminal output of finished commands."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atlas_ray.client import Categorized
from atlas_ray.errors import ItemError
from atlas_ray.metrics import PathMetrics
from atlas_ray.reports.words import evaluation_verdict
from atlas_ray.taxonomy import TaxonomyChanges, format_path
from atlas_ray.taxonomy.changes import GUESSES

SHOWN = 10
MAX_SHOWN_CHARACTERS, MAX_SHOWN_COLUMNS = 500, 20
"""Of a value; of a table."""
"""Labels that are shown of each model, as in the late-fusion paper (tables 2 and 4); models that a table shows."""


def print_import(report: Any) -> None:
    """Print the result of an import (`atlas_ray.catalog.importer.ImportReport`)."""
    console = wide_console()
    splits = ", ".join(f"{name} {count}" for name, count in report.splits.items()) or "none labelled"
    _print_columns(console, report.columns, report.unused)
    console.print(f"{report.products} products, {report.images} pictures; {report.labelled} labelled: {splits}")
    if report.changes:
        words = {"added": "added", "changed": "changed", "same": "the same", "removed": "removed"}
        counts = ", ".join(f"{report.changes[name]} {word}" for name, word in words.items())
        console.print(f"{counts}; {report.changes['absent']} are not in the source, and stay")
    _print_split_origins(console, report.split_origins)
    if report.joined:
        other = ", ".join(f"{name} {count}" for name, count in report.kept_first.items())
        other = f"; the first value was kept of {other}" if other else ""
        console.print(f"{report.joined} further rows joined to their products{other}")
    _print_unread(console, report.unread)
    _print_assumed(console, report.assumed, report.path_separator, report.likely_separator)
    _print_unsure(console, report.unsure_paths)
    if report.taxonomy is not None:
        console.print(f"taxonomy: {len(report.taxonomy.leaves)} leaves, id {report.taxonomy.id}")
    if report.encoding_assumed:
        console.print(f"read as {report.encoding}, which is a guess; --encoding says another")
    if report.quarantined:
        refused, rows = report.quarantined.total(), report.records - report.blank
        console.print(f"quarantined: {refused} of {rows} rows; see {report.output}/quarantine")
        for code, count in report.quarantined.most_common():
            console.print(f"  {code} {count}, such as {report.examples[code]}")
        if report.hint:
            console.print(f"  {report.hint}")
    _some(console, "category paths with fewer than 20 products", report.few)
    _some(console, "labels above the leaves of the taxonomy, which say less than a leaf", report.not_leaves)
    title = "category paths without a product in train, so no model can learn them (--split-exact puts one there)"
    _some(console, title, report.untrained)
    console.print(f"catalogue in {report.output}")


def print_preview(preview: Any) -> None:
    """Print a preview of an import (`atlas_ray.catalog.preview.Preview`)."""
    console = wide_console()
    _print_columns(console, preview.reader.columns_taken, preview.unused)
    for product in preview.products[:SHOWN]:
        console.print()
        for name, value in product.items():
            if value not in (None, []):
                if name in ("category_path", "breadcrumb"):
                    value = format_path(value)
                elif name == "image_uris":
                    value = "\n".join(value)
                text = str(value).replace("\n", f"\n{'':15}")
                console.print(f"{name:14} {text[:MAX_SHOWN_CHARACTERS]}")
    console.print()
    console.print(f"{len(preview.products)} products in the first {preview.rows} rows; nothing was written")
    _print_unread(console, preview.reader.unread)
    for code, count in preview.refused.most_common():
        console.print(f"{code} {count}, such as {preview.examples[code]}")
    separator = preview.reader.separators["category_path"]
    _print_assumed(console, preview.assumed, separator, preview.reader.likely_separator)
    _print_unsure(console, preview.reader.unsure)


def _print_columns(console: Console, columns: dict[str, list[str]], unused: list[str]) -> None:
    taken = (f"{name} from {' and '.join(map(repr, found))}" for name, found in columns.items())
    console.print(", ".join(taken))
    if unused:
        more = f" and {len(unused) - MAX_SHOWN_COLUMNS} more" if len(unused) > MAX_SHOWN_COLUMNS else ""
        text = ", ".join(map(repr, unused[:MAX_SHOWN_COLUMNS]))
        console.print(f"not used (--map FIELD=COLUMN takes them): {text}{more}")


def _print_unread(console: Console, fields: dict[str, Any]) -> None:
    for name, unread in fields.items():
        console.print(f"{name}: {unread.count} could not be read, such as {unread.example}")


def _print_unsure(console: Console, paths: Any) -> None:
    if paths is not None:
        text = f"{paths.count} category paths have a name with ',', ';' or '|' in it, such as {paths.example}"
        hint = "if a cell names several paths, --category-separator says what stands between them"
        console.print(f"{text}, and were read as one each; {hint}", markup=False)


def _print_assumed(console: Console, assumed: list[str], separator: str, likely: str | None) -> None:
    for sentence in assumed:
        console.print(sentence)
    if likely:
        text = f"no category path has the separator {separator!r}, but most have {likely!r}"
        console.print(f"{text}: import anew with --path-separator {likely!r}")


def _print_split_origins(console: Console, origins: Counter[str]) -> None:
    if origins["previous"]:
        others = ", ".join(f"{origins[name]} {name}" for name in ("source", "drawn") if origins[name])
        console.print(
            f"{origins['previous']} products keep the split of --previous" + (f"; {others}" if others else "")
        )
    if count := origins["contradicts_previous"]:
        text = "products have another split in the source than in --previous; the source's counts, and models"
        console.print(f"{count} {text} made of the earlier catalogue may have been trained on what is tested now")
    if count := origins["previous_disagree"]:
        console.print(f"{count} products have different splits in the catalogues of --previous; the last one counts")


def print_score(report: Any) -> None:
    """Print the result of a scoring run (`atlas_ray.runs.run_record.RunReport`)."""
    console = wide_console()
    counts, run = report.counts, report.run
    if report.already_done:
        console.print(f"{report.output} holds this run already, finished {run['finished_at'][:19]}; nothing to do")
    table = Table("pictures", "count", title=f"model {run['identity']['model_id']}")
    table.columns[1].justify = "right"
    for name in ("input", "scored", "carried", "filtered", "quarantined"):
        if name != "carried" or run.get("previous"):
            table.add_row(name, str(counts[name]))
    for code, count in sorted(run["quarantined_by_code"].items(), key=lambda item: -item[1]):
        table.add_row(f"  {code}", str(count))
    if unseen := run.get("without_picture_by_code"):
        table.add_row("scored by texts alone", str(sum(unseen.values())))
        for code, count in sorted(unseen.items(), key=lambda item: -item[1]):
            table.add_row(f"  {code}", str(count))
    if cascade := run.get("cascade"):
        table.add_row("not read, answered by texts alone", str(counts["pictures_unread"]))
    console.print(table)
    if cascade:
        console.print(
            f"{counts['products_by_texts']} products by their texts alone, {cascade['share_read']:.1%} of the pictures "
            f"read; risk {cascade['risk']:.4f} at coverage {cascade['coverage']:.3f} in the calibration, on "
            f"{cascade['products']} products with a text"
        )
    what = "a label" if (run.get("identity") or {}).get("thresholds") else "a category path"
    console.print(f"{counts['products_categorized']} of {counts['products']} products have {what}")
    seconds = run["seconds"]
    if not report.already_done:
        console.print(f"{seconds['total']:.0f} s in all; {_rate(run)}")
    for name in ("products", "predictions", "quarantine", "run.json"):
        console.print(f"  {report.output}/{name}")


def _rate(run: dict[str, Any]) -> str:
    seconds = run["seconds"].get("first_read_to_last_write")
    carried = sum((run.get("previous") or {}).get("carried", {}).values())
    scored = run["counts"]["input"] - run["resumed_from"] - carried
    what = "products" if (run.get("identity") or {}).get("embeddings") else "pictures"
    return f"{scored / seconds:.0f} {what}/s from first read to last write" if seconds else "nothing was left to score"


def print_evaluation(metrics: dict[str, PathMetrics], folder: str) -> None:
    """Print the metrics by split, and the paths that fare worst."""
    console = wide_console()
    depth = max(len(figures.levels) for figures in metrics.values())
    table = Table(
        "split",
        "products",
        "exact path",
        *(f"level {n + 1}" for n in range(depth)),
        "hierarchical F1",
        "macro F1",
        "calibration error",
        "unscored",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for split, figures in metrics.items():
        levels = [f"{value:.4f}" for value in figures.levels] + ["-"] * (depth - len(figures.levels))
        table.add_row(
            split,
            str(figures.products),
            f"{figures.exact:.4f}",
            *levels,
            f"{figures.hierarchical_f1:.4f}",
            f"{figures.macro_f1:.4f}",
            f"{figures.calibration_error:.4f}",
            str(figures.unscored),
        )
    console.print(table)
    split = next(name for name in ("test", "held out", "all") if name in metrics)
    paths = Table(
        "category path",
        "precision",
        "recall",
        "F1",
        "support",
        title=f"most products, split {split}",
    )
    for column in paths.columns[1:]:
        column.justify = "right"
    for row in metrics[split].paths[:SHOWN]:
        paths.add_row(
            format_path(row.path),
            f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.f1:.3f}",
            str(row.support),
        )
    console.print(paths)
    console.print(f"every path in {folder}/paths.parquet, a page of it all in {folder}/report.html")
    console.print(evaluation_verdict(split, metrics[split]))


def print_changes(changes: TaxonomyChanges) -> None:
    """Print how many paths each kind of change has, and some of those that did not just follow their parent."""
    console = wide_console()
    old, new, counts = changes.old, changes.new, changes.count()
    for title, one in (("old", old), ("new", new)):
        version = f" {one.version}" if one.version else ""
        console.print(f"{title}: {one.name}{version}, {len(one.nodes)} paths, id {one.id}")
    console.print("told by their ids" if changes.by_id else "told by their names: no id is in both")
    table = Table("", "paths", "leaves", "following their parent")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, row in counts.items():
        table.add_row(kind, *map(str, row.values()))
    console.print(table)
    added = set(changes.added)
    for kind in counts:
        lines = [
            f"{format_path(one.old)}{' -> ' if one.new else ''}{'; '.join(map(format_path, one.new))}"
            + (" (a guess)" if one.source in GUESSES else "")
            for one in changes.changes
            if one.kind == kind != "unchanged" and not one.follows
        ]
        if kind == "added":
            lines = [format_path(path) for path in changes.added if path[:-1] not in added]
        if lines:
            console.print(f"{kind}:")
            for line in lines[:SHOWN]:
                console.print(f"  {line}")
            if len(lines) > SHOWN:
                console.print(f"  and {len(lines) - SHOWN} more")
    for turned, one_did, several_did in (
        (changes.stopped_leaves, "path stopped being a leaf", "paths stopped being leaves"),
        (changes.began_leaves, "path is a leaf now", "paths are leaves now"),
    ):
        if turned:
            console.print(f"{len(turned)} {one_did if len(turned) == 1 else several_did}:")
            for old_path, new_path in turned[:SHOWN]:
                became = "" if old_path == new_path else f" -> {format_path(new_path)}"
                console.print(f"  {format_path(old_path)}{became}")
            if len(turned) > SHOWN:
                console.print(f"  and {len(turned) - SHOWN} more")
    if changes.unused:
        console.print(f"{len(changes.unused)} paths of the mapping are not in the old taxonomy, such as:")
        for path in changes.unused[:SHOWN]:
            console.print(f"  {format_path(path)}")


def print_migration(report: Any) -> None:
    """Print the result of a migration (`atlas_ray.runs.run_record.RunReport`)."""
    console = wide_console()
    run, counts = report.run, report.counts
    if report.already_done:
        console.print(f"{report.output} holds this migration already, finished {run['finished_at'][:19]}")
    table = Table("", "rows", "migrated", "undetermined", "without a path", "why undetermined")
    for column in table.columns[1:5]:
        column.justify = "right"
    for kind, reasons in run["undetermined_by_reason"].items():
        names = (kind, f"{kind}_migrated", f"{kind}_undetermined", f"{kind}_without_path")
        why = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        table.add_row(kind, *(str(counts[name]) for name in names), why)
    console.print(table)
    identity = run["identity"]
    made, old = run["made_with_taxonomy_id"], identity["old_taxonomy_id"]
    if made and made != old:
        text = (
            f"what was migrated is of the taxonomy {made}, the old one given is {old}; paths that it lacks are unknown"
        )
        console.print(text)
    for name, kind in (("rescore", "products"), ("relabel", "labels")):
        if counts.get(f"{kind}_undetermined"):
            console.print(f"  {report.output}/{name} lists the {kind} without a certain place; to decide on them:")
            flag = "--run" if "run" in identity else "--catalog"
            source = f"{flag} {report.output} --products {report.output}/{name}"
            console.print(f"    atlas-ray review {source} --output NEW --serve")
    console.print(f"all is of the taxonomy {identity['taxonomy_id']} in {report.output}")


def print_categorized(rows: Sequence[tuple[str, Categorized | ItemError]]) -> None:
    """Print the answers of an endpoint, a row for each product."""
    table = Table("product", "category path", "probability", "next best", "")
    table.columns[2].justify = table.columns[4].justify = "right"
    for name, result in rows:
        if isinstance(result, ItemError):
            table.add_row(name, Text(str(result), style="red"), "", "", "")
            continue
        if not result.category_path:  # of a model of labels
            names = ", ".join(f"{one.label} {one.probability:.4f}" for one in result.labels) or "no label"
            other = next(iter(result.other_labels), None)
            table.add_row(name, names, "", other.label if other else "", f"{other.probability:.4f}" if other else "")
            continue
        best = next(iter(result.alternatives), None)
        table.add_row(
            name,
            format_path(result.category_path),
            f"{result.probability:.4f}",
            format_path(best.category_path) if best else "",
            f"{best.probability:.4f}" if best else "",
        )
    wide_console().print(table)


def _some(console: Console, title: str, items: list[tuple[Any, int]]) -> None:
    if not items:
        return
    console.print(f"{len(items)} {title}:")
    for path, count in items[:SHOWN]:
        console.print(f"  {format_path(path)}: {count}")
    if len(items) > SHOWN:
        console.print(f"  and {len(items) - SHOWN} more, in run.json")


def wide_console() -> Console:
    """Return a console that prints texts as they are, and does not cut lines if the output is not a terminal."""
    console = plain_console()
    return console if console.is_terminal else plain_console(width=160)


def plain_console(width: int | None = None) -> Console:
    """Return a console to which `[new]` and `:shirt:` in the name of a category are no more than text."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=width)
