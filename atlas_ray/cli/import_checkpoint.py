"""`import-checkpoint`: a published Atlas checkpoint turned into a model."""

import argparse

from atlas_ray.cli.command import EXIT_OK


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `import-checkpoint`."""
    parser.add_argument("checkpoint", help="the .pth.tar file; nothing in it is executed")
    parser.add_argument("--word-map", required=True, help="WORDMAP_*.json of the checkpoint")
    parser.add_argument("--taxonomy", required=True, help="taxonomy that it predicts: a file, or the built-in atlas-52")
    parser.add_argument("--output", required=True, help="folder for the model")
    parser.add_argument(
        "--image-size-px", type=int, default=150, help="side of the pictures it was trained on (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Turn a published Atlas checkpoint into a model."""
    from atlas_ray.artifacts.atlas_checkpoint import import_checkpoint
    from atlas_ray.errors import OutputError
    from atlas_ray.io import storage
    from atlas_ray.taxonomy import read_taxonomy

    if storage.exists(storage.join(options.output, "model.json")):
        raise OutputError(f"{options.output} holds a model; name another folder with --output")
    model_id = import_checkpoint(
        options.checkpoint,
        options.word_map,
        options.output,
        taxonomy=read_taxonomy(options.taxonomy),
        image_size_px=options.image_size_px,
    )
    print(f"model {model_id} in {options.output}")
    return EXIT_OK
