"""`explain`: where a model looked at a picture or a text, level by level."""

import argparse

from atlas_ray.cli.command import EXIT_OK, settings_of
from atlas_ray.settings import add_flags

OF_MANY_PICTURES = ("batch_size", "engine", "threads", "decode_threads")
"""Settings of a predictor that make no difference for one picture."""
WORDS = 3
"""The words that are printed for a level."""


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `explain`."""
    from atlas_ray.prediction.settings import PredictorConfig

    parser.add_argument(
        "picture", nargs="?", help="picture to explain: a local file, or s3://bucket/key; none for a model of texts"
    )
    parser.add_argument("--model", required=True, help="folder of an encoder-decoder, or of a fused model with one")
    parser.add_argument("--output", default="explained.png", help="file for the drawing, a PNG (default: %(default)s)")
    parser.add_argument("--within", help="answer at and below this path alone: 'Women > Ethnic Wear'")
    parser.add_argument("--title", help="title of the product, for a model that reads titles")
    parser.add_argument("--description", help="description of the product, for a model that reads descriptions")
    add_flags(parser, PredictorConfig, skip=OF_MANY_PICTURES)


def run(options: argparse.Namespace) -> int:
    """Draw where a model looked at each level of a picture's path, or print it of a text's."""
    from atlas_ray.io import storage
    from atlas_ray.prediction.settings import PredictorConfig
    from atlas_ray.reports.explainer import explain_picture, explain_text
    from atlas_ray.taxonomy import format_path, parse_path

    within = parse_path(options.within) if options.within else ()
    texts = {"title": [options.title], "description": [options.description]}
    config = settings_of(options, PredictorConfig)
    if options.picture is None:
        answer, words = explain_text(options.model, texts, within=within, config=config)
        looked = [": " + ", ".join(f"{word} {share:.2f}" for word, share in level[:WORDS]) for level in words]
    else:
        picture = storage.absolute(options.picture)
        answer, drawing = explain_picture(picture, options.model, within=within, texts=texts, config=config)
        storage.write_bytes(storage.absolute(options.output), drawing)
        looked = [""] * len(answer["category_path"])
    for name, probability, at in zip(answer["category_path"], answer["level_probabilities"], looked, strict=True):
        print(f"{probability:.4f}  {name}{at}")
    for other in answer["alternatives"]:
        print(f"{other['probability']:.4f}  or {format_path(other['category_path'])}")
    if options.picture is not None:
        print(f"where it looked: {options.output}")
    return EXIT_OK
