"""`score`, `evaluate`, `evaluate-labels` and `explain`."""

import argparse
import sys
from dataclasses import replace

from atlas_ray.cli.command import EXIT_OK, run_exit


def add_score(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `score`."""
    from atlas_ray.prediction.paths import PredictorConfig
    from atlas_ray.scoring.settings import ScoreConfig
    from atlas_ray.settings import add_flags

    add_flags(parser, ScoreConfig)
    add_flags(parser, PredictorConfig)


def run_score(options: argparse.Namespace) -> int:
    """Give every product of a catalogue its category path."""
    from atlas_ray.prediction.paths import PredictorConfig
    from atlas_ray.reports.terminal import print_score
    from atlas_ray.scoring.run import score
    from atlas_ray.scoring.settings import ScoreConfig
    from atlas_ray.settings import COMMAND_LINE, build_settings, given

    predictor = build_settings(PredictorConfig, given(options, PredictorConfig), COMMAND_LINE)
    config = replace(build_settings(ScoreConfig, given(options, ScoreConfig), COMMAND_LINE), predictor=predictor)
    if config.target_precision and (config.within or config.taxonomy):
        print(
            "--target-precision was calibrated on the model's whole taxonomy; in a part of it, or in another one, the "
            "answers may reach another precision",
            file=sys.stderr,
        )
    report = score(config)
    print_score(report)
    return run_exit("score", report, config.max_quarantine_fraction)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `evaluate`."""
    parser.add_argument("--run", dest="scored", required=True, help="the output of `atlas-ray score`")
    parser.add_argument("--output", help="where evaluation/ goes; the run itself by default")
    parser.add_argument("--model", help="the run's model, to show where it looked and which new paths it would spell")
    parser.add_argument("--embeddings", help="the output of `atlas-ray embed`, to list likely label errors")


def run_evaluate(options: argparse.Namespace) -> int:
    """Compare scored products with their labels."""
    from atlas_ray.evaluation.paths import evaluate
    from atlas_ray.io import storage
    from atlas_ray.reports.terminal import print_evaluation

    metrics = evaluate(options.scored, options.output, model=options.model, embeddings=options.embeddings)
    print_evaluation(metrics, storage.join(options.output or options.scored, "evaluation"))
    return EXIT_OK


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `explain`."""
    parser.add_argument("picture", help="a picture's file, or an s3://bucket/key")
    parser.add_argument("--model", required=True, help="an encoder-decoder, or a fused model with one")
    parser.add_argument("--output", default="explained.png", help="the drawing, a PNG (default: %(default)s)")
    parser.add_argument("--within", help="answer at and below this path alone: 'Women > Ethnic Wear'")
    parser.add_argument("--title", help="of the product, for a model that reads titles")
    parser.add_argument("--description", help="of the product, for a model that reads descriptions")


def run_explain(options: argparse.Namespace) -> int:
    """Draw where a model looked at each level of a picture's path."""
    from atlas_ray.io import storage
    from atlas_ray.reports.explainer import explain_picture
    from atlas_ray.taxonomy import format_path, parse_path

    within = parse_path(options.within) if options.within else ()
    texts = {"title": [options.title], "description": [options.description]}
    found, drawing = explain_picture(storage.absolute(options.picture), options.model, within=within, texts=texts)
    storage.write_bytes(storage.absolute(options.output), drawing)
    for name, probability in zip(found["category_path"], found["level_probabilities"], strict=True):
        print(f"{probability:.4f}  {name}")
    for other in found["alternatives"]:
        print(f"{other['probability']:.4f}  or {format_path(other['category_path'])}")
    print(f"where it looked: {options.output}")
    return EXIT_OK


def add_evaluate_labels(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `evaluate-labels`."""
    from atlas_ray.modalities import MODALITIES

    parser.add_argument("--catalog", required=True, help="a catalogue with labelled products")
    parser.add_argument(
        "--split", default="test", choices=("test", "val", "train"), help="which of them (default: %(default)s)"
    )
    for name in MODALITIES:
        parser.add_argument(f"--{name}", metavar="MODEL", help=f"a model of labels that looks at the {name}")
    parser.add_argument("--fused", action="append", default=[], metavar="MODEL", help="a fused one; may be repeated")
    parser.add_argument("--output", required=True, help="where models.parquet and missed.parquet go")


def run_evaluate_labels(options: argparse.Namespace) -> int:
    """Measure models of labels."""
    from atlas_ray.errors import ConfigError
    from atlas_ray.evaluation.labels import evaluate_labels
    from atlas_ray.modalities import MODALITIES
    from atlas_ray.reports.terminal import print_labels

    models = [uri for name in MODALITIES if (uri := getattr(options, name))] + options.fused
    if not models:
        raise ConfigError("no model to measure; name some with --picture, --title, --description and --fused")
    report = evaluate_labels(options.catalog, options.output, models, split=options.split)
    print_labels(report, options.output)
    return EXIT_OK
