"""`explain`: where a model looked at a picture, level by level."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags

OF_MANY_PICTURES = ("batch_size", "engine", "threads", "decode_threads")
"""Settings of a predictor that make no difference for one picture."""


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `explain`."""
    from atlas_ray.prediction.settings import PredictorConfig

    parser.add_argument("picture", help="picture to explain: a local file, or s3://bucket/key")
    parser.add_argument("--model", required=True, help="folder of an encoder-decoder, or of a fused model with one")
    parser.add_argument("--output", default="explained.png", help="file for the drawing, a PNG (default: %(default)s)")
    parser.add_argument("--within", help="answer at and below this path alone: 'Women > Ethnic Wear'")
    parser.add_argument("--title", help="title of the product, for a model that reads titles")
    parser.add_argument("--description", help="description of the product, for a model that reads descriptions")
    add_flags(parser, PredictorConfig, skip=OF_MANY_PICTURES)


def run(options: argparse.Namespace) -> int:
    """Draw where a model looked at each level of a picture's path."""
    from atlas_ray.io import storage
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.reports.explainer import explain_picture
    from atlas_ray.taxonomy import format_path, parse_path

    within = parse_path(options.within) if options.within else ()
    texts = {"title": [options.title], "description": [options.description]}
    answer, drawing = explain_picture(
        storage.absolute(options.picture),
        options.model,
        within=within,
        texts=texts,
        config=settings_of(options, PredictorConfig),
    )
    storage.write_bytes(storage.absolute(options.output), drawing)
    for name, probability in zip(answer["category_path"], answer["level_probabilities"], strict=True):
        print(f"{probability:.4f}  {name}")
    for other in answer["alternatives"]:
        print(f"{other['probability']:.4f}  or {format_path(other['category_path'])}")
    print(f"where it looked: {options.output}")
    return EXIT_OK
