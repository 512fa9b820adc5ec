"""`calibrate`: probabilities that can be trusted."""

import argparse
import sys

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calibrate`."""
    parser.add_argument(
        "--model", required=True, help="folder of the model; calibration changes its temperature and its id"
    )
    parser.add_argument("--catalog", required=True, help="a catalogue with labelled products")
    parser.add_argument(
        "--split",
        default="val",
        choices=("val", "test", "train"),
        help="split of the products to calibrate on (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Fit the temperature of a model's probabilities, and store it in the model."""
    from atlas_ray.evaluation.calibration import calibrate

    calibration = calibrate(options.model, options.catalog, split=options.split)
    print(f"model {calibration.model_id} in {options.model}: temperature {calibration.temperature:.3f}")
    print(
        f"expected calibration error of the whole path, on {calibration.products} products: "
        f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after"
    )
    if calibration.doubt:
        print(calibration.doubt, file=sys.stderr)
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
