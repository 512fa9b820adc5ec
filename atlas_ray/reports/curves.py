"""The curves of a training run: loss, learning rate, and accuracy by level or micro-F1."""

import io
from collections.abc import Sequence
from typing import Any

from atlas_ray.metrics import FIGURES


def draw_curves(history: Sequence[dict[str, Any]], title: str) -> bytes:
    """Draw a run's history.

    Args:
        history: An epoch each: epoch, train_loss, val_loss, encoder_lr, decoder_lr, val_accuracy
            and val_accuracy_level_1 and so on, or of labels val_micro_f1, val_micro_precision and
            val_micro_recall.
        title: Of the picture.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    epochs = [row["epoch"] for row in history]
    if labels := "val_micro_f1" in history[0]:
        measures = [(name, f"val_micro_{name.lower()}") for name in ("precision", "recall", "F1")]
    else:
        levels = [name for name in history[0] if name.startswith("val_accuracy_level_")]
        levels.sort(key=lambda name: int(name.rpartition("_")[2]))
        measures = [*((f"level {name.rpartition('_')[2]}", name) for name in levels), ("whole path", "val_accuracy")]
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    loss, rate, accuracy = figure.subplots(1, 3)
    validated = bool(history[0].get("val_examples"))
    curves = (
        (loss, "loss", [("training", "train_loss"), *([("validation", "val_loss")] if validated else [])]),
        (rate, "learning rate at the epoch's end", [("encoder", "encoder_lr"), ("decoder or head", "decoder_lr")]),
        (
            accuracy,
            "validation, micro-averaged over the labels" if labels else "validation accuracy",
            measures if validated else [],
        ),
    )
    for axes, label, lines in curves:
        for name, column in lines:
            style = "--" if column in FIGURES else "-"
            axes.plot(
                epochs, [row[column] for row in history], style, label=name, marker="." if len(epochs) < 40 else ""
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if lines:
            axes.legend()
        else:
            axes.text(0.5, 0.5, "no validation split", ha="center", transform=axes.transAxes)
    if all(row["decoder_lr"] > 0 for row in history):
        rate.set_yscale("log")
        rate.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        rate.yaxis.set_minor_formatter(NullFormatter())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
