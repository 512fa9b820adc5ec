"""Figures of labels, printed."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from atlas_ray.io import storage
from atlas_ray.reports.terminal import wide_console
from atlas_ray.reports.words import headline_split

MISSED, SIDE_BY_SIDE = 15, 3
"""The numbers of labels and of models that are shown."""


def print_labels(report: Any, folder: str) -> None:
    """Print the figures of models of labels (`atlas_ray.evaluation.labels.LabelReport`)."""
    console = wide_console()
    single = [row for row in report.models if row["policy"] is None]
    fused = [row for row in report.models if row["policy"] is not None]
    for title, rows in (("models of one modality", single), ("fused models", fused)):
        if not rows:
            continue
        table = Table(
            "model", "reads", "policy", "micro-F1", "precision", "recall", "products",
            title=f"{title}, on {report.products} products",
        )  # fmt: skip
        for column in table.columns[3:]:
            column.justify = "right"
        for row in rows:
            shares = (f"{row[name]:.4f}" for name in ("micro_f1", "micro_precision", "micro_recall"))
            name = _last(row["model"])
            table.add_row(name, row["modalities"], row["policy"] or "", *shares, str(row["products"]))
        console.print(table)
    for start in range(0, len(report.models), SIDE_BY_SIDE):
        rows = [*single, *fused][start : start + SIDE_BY_SIDE]
        table = Table("", *(_last(row["model"]) for row in rows), title="labels most often missed")
        columns = [[one for one in report.missed if one["model"] == row["model"]][:MISSED] for row in rows]
        for rank, labels in enumerate(zip(*columns, strict=True), 1):
            table.add_row(str(rank), *(f"{one['label']} {one['missed']}/{one['support']}" for one in labels))
        console.print(table)
    if len(single) > 1:
        console.print(_overlap(single, report.overlap))
    if report.left_out:
        console.print(f"{report.left_out} products left out: their labels are no leaves of the models' taxonomy")
    for uri, count in report.fitted.items():
        if count is None:
            console.print(f"{_last(uri)}: which products it was fitted on is not known")
        elif count:
            text = f"{_last(uri)} was fitted on {count} of these {report.products} products, where it does better"
            console.print(f"{text} than on others")
    console.print(
        f"every label in {folder}/missed.parquet, the models in {folder}/models.parquet, "
        f"what two miss in {folder}/overlap.parquet"
    )


def _overlap(models: Sequence[Mapping[str, Any]], overlap: Sequence[Mapping[str, Any]]) -> Table:
    """Return how much of what a model of one modality misses each other one misses, too."""
    rows = {(row["model"], row["other"]): row for row in overlap}
    uris = [model["model"] for model in models]
    table = Table("missed by", "labels", *(f"{_last(uri)} too" for uri in uris), title="what the models miss alike")
    for column in table.columns[1:]:
        column.justify = "right"
    for uri in uris:
        pairs = [rows.get((uri, other)) for other in uris]
        shares = ("" if pair is None else f"{pair['missed_by_both'] / max(pair['missed'], 1):.1%}" for pair in pairs)
        missed = next(pair["missed"] for pair in pairs if pair is not None)
        table.add_row(_last(uri), str(missed), *shares)
    return table


def _last(uri: str) -> str:
    return uri.rpartition("/")[2]


def print_label_metrics(metrics: Mapping[str, Any], folder: str) -> None:
    """Print the figures of a run of labels by split (`atlas_ray.evaluation.label_run.LabelMetrics`)."""
    console = wide_console()
    table = Table("split", "products", "micro-F1", "precision", "recall", "macro F1", "all labels right", "unscored")
    for column in table.columns[1:]:
        column.justify = "right"
    for split, one in metrics.items():
        shares = (one.micro_f1, one.micro_precision, one.micro_recall, one.macro_f1, one.exact)
        table.add_row(split, str(one.products), *(f"{share:.4f}" for share in shares), str(one.unscored))
    console.print(table)
    split = headline_split(metrics)
    labels = Table("label", "threshold", "precision", "recall", "F1", "support", title=f"most products, split {split}")
    for column in labels.columns[1:]:
        column.justify = "right"
    for row in metrics[split].labels[:MISSED]:
        figures = (f"{row[name]:.3f}" for name in ("threshold", "precision", "recall", "f1"))
        labels.add_row(row["label"], *figures, str(row["support"]))
    console.print(labels)
    console.print(f"every label in {folder}/labels.parquet, a page of it all in {folder}/report.html")


def print_label_comparison(account: Mapping[str, Any], output: str) -> None:
    """Print what `atlas_ray.evaluation.label_comparison.compare_labels` returns, and the labels that changed most."""
    console = wide_console()
    for side in ("before", "after"):
        console.print(f"{side}: {account[side]['run']}, model {account[side]['model_id']}")
    products = account["products"]
    console.print(f"{products['same']} products have the same labels, {products['moved']} others")
    if products["only_before"] or products["only_after"]:
        console.print(f"{products['only_before']} products only before, {products['only_after']} only after")
    for note in account["notes"]:
        console.print(note)
    table = Table("split", "products", "micro-F1 before", "after", "all labels right before", "after", "won", "lost")
    for column in table.columns[1:]:
        column.justify = "right"
    for split, paired in account["all_labels_right"].items():
        f1 = (account[side]["micro_f1"][split] for side in ("before", "after"))
        shares = (*f1, paired["before"], paired["after"])
        counts = (str(paired[name]) for name in ("won", "lost"))
        table.add_row(split, str(paired["products"]), *(f"{share:.4f}" for share in shares), *counts)
    if table.row_count:
        console.print(table)
    head = ("label", "before", "after", "gained", "lost", "support", "right_before", "right_after")
    labels = Table(*(name.replace("_", " ") for name in head), title="labels that changed most")
    for column in labels.columns[1:]:
        column.justify = "right"
    for row in storage.read_table(storage.join(output, "labels.parquet")).slice(0, MISSED).to_pylist():
        labels.add_row(*(str(row[name]) for name in head))
    console.print(labels)
    for name in ("labels.parquet", "products.parquet", "comparison.json"):
        console.print(f"  {output}/{name}")
