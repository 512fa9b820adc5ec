"""`calibrate`: probabilities that can be trusted."""

import argparse
import sys

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calibrate`."""
    parser.add_argument(
        "--model",
        required=True,
        help="folder of the model; calibration changes its temperature, or a model of labels' thresholds, and its id",
    )
    parser.add_argument("--catalog", required=True, help="a catalogue with labelled products")
    parser.add_argument(
        "--split",
        default="val",
        choices=("val", "test", "train"),
        help="split of the products to calibrate on (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Fit the temperature of a model's probabilities, or choose its labels' thresholds, and store that in the model."""
    from atlas_ray.evaluation.calibration import Calibrated, calibrate
    from atlas_ray.metrics.decision import least_threshold

    calibration = calibrate(options.model, options.catalog, split=options.split)
    if isinstance(calibration, Calibrated):
        print(f"model {calibration.model_id} in {options.model}: temperature {calibration.temperature:.3f}")
        print(
            f"expected calibration error of the whole path, on {calibration.products} products: "
            f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after"
        )
        for wanted in (0.95, 0.98, 0.99) if calibration.texts_alone else ():
            reached = least_threshold(calibration.texts_alone, wanted)
            share = "no answer" if reached is None else f"{reached.answered:.3f} of the products with a text"
            print(f"by the texts alone (score --cascade {wanted}): {share}")
        if calibration.doubt:
            print(calibration.doubt, file=sys.stderr)
    else:
        print(f"model {calibration.model_id} in {options.model}: a threshold for each label")
        print(
            f"micro-F1 on the {calibration.products} products that they were chosen on: "
            f"{calibration.f1_before:.4f} before, {calibration.f1_after:.4f} after"
        )
        if calibration.unseen:
            print(f"{calibration.unseen} labels, which none of these products has, stay as they were", file=sys.stderr)
    if calibration.trained_on:
        print(
            f"the model was trained on {calibration.trained_on} of these products, where it is surer than elsewhere; "
            "calibrate on others with --split",
            file=sys.stderr,
        )
    elif calibration.trained_on is None:
        print(
            "not known whether the model was trained on these products: it was imported, or is older",
            file=sys.stderr,
        )
    if calibration.was_fitted_on:
        print(
            f"the policy was fitted on the split {options.split!r}, where it is surer than elsewhere; calibrate on "
            "another one with --split",
            file=sys.stderr,
        )
    return EXIT_OK
