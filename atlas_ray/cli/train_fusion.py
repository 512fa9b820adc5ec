"""`train fusion`: the policy that fuses models of pictures, titles and descriptions."""

import argparse
from collections.abc import Mapping
from typing import Any

from atlas_ray.cli.command import EXIT_OK
from atlas_ray.cli.train import flags, training_of

__all__ = ["flags", "run"]


def run(options: argparse.Namespace) -> int:
    """Fit a policy."""
    from atlas_ray.training.fusion import train_fusion
    from atlas_ray.training.settings import FusionTraining

    report = train_fusion(training_of(options, FusionTraining), fresh=options.fresh)
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do (--fresh fits it anew)")
    print(f"model {report.model_id} in {report.output}")
    of_paths = "fit_accuracy" in report.metrics
    found = report.metrics["fit_accuracy" if of_paths else "fit_micro_f1"]
    shares = ", ".join(f"{name} {share:.4f}" for name, share in found.items())
    measure = "whole path right, of" if of_paths else "micro-F1 on"
    print(f"{measure} the {report.metrics['products']} products that it was fitted on: {shares}")
    for one in report.metrics.get("contests", ()):
        print(_contest(one, report.metrics["settings"]["policy"], str(report.metrics["judged_on"])))
    return EXIT_OK


def _contest(contest: Mapping[str, Any], policy: str, judged_on: str) -> str:
    model, verdict = contest["model"], "so the policy answers"
    if contest["kept"]:
        verdict = f"so the {model}'s answer is kept wherever there is one"
    return (
        f"of {contest['products']} {judged_on} products with a {model} the policy {policy} has "
        f"{contest['policy_right']:.4f} right, the {model} alone {contest['model_right']:.4f} ({contest['won']} won, "
        f"{contest['lost']} lost), {verdict}"
    )
