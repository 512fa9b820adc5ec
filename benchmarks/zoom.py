"""The zoom filter and its baseline on close-ups that are cut from a catalogue's own pictures.

    python -m benchmarks.zoom --catalog CATALOG [--pictures 4000] [--epochs 10] [--sheet sheet.png]

Prints the table of the report, and how many whole pictures of products that the filter has not
trained on it would drop, as a filter sees them: decoded, and nothing else done to them. `--sheet`
draws examples of both kinds.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image

from atlas_ray.artifacts import load_zoom_artifact
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.reports.zoom import print_zoom
from atlas_ray.zoom.examples import Examples, read_examples, split_of
from atlas_ray.zoom.settings import ZoomTraining
from atlas_ray.zoom.sources import draw_candidates
from atlas_ray.zoom.training import train_zoom

SHEET = (8, 5)
"""Columns of the sheet, and rows of each kind."""


def draw_sheet(examples: Examples, path: str) -> None:
    """Draw close-ups above, normal pictures below."""
    columns, rows = SHEET
    parts = []
    for zoomed in (True, False):
        chosen = examples.pixels[torch.from_numpy(examples.zoomed == zoomed)][: columns * rows]
        size = chosen.shape[-1]
        grid = torch.zeros((columns * rows, 3, size, size), dtype=torch.uint8)
        grid[: len(chosen)] = chosen
        parts.append(grid.view(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2).reshape(rows * size, -1, 3))
    Image.fromarray(torch.cat(parts).numpy()).save(path)


def dropped(config: ZoomTraining, model: str) -> tuple[int, int]:
    """Return how many untouched pictures of the test split's products are found zoomed, and of how many."""
    predictor = ZoomPredictor(load_zoom_artifact(model))
    uris = [one.uri for one in draw_candidates(config).drawn if split_of(one.product_id, config.seed) == "test"]
    with ObjectReader() as reader:
        contents = [content for content in reader.read_many(uris) if isinstance(content, bytes)]
    pictures, refused = decode_batch(contents, predictor.image_size_px)
    found = predictor(pictures) >= predictor.threshold
    return int(sum(found[index] for index in range(len(found)) if index not in refused)), len(found) - len(refused)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--output", help="where the model goes; a temporary folder by default")
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = ZoomTraining(
            catalog=options.catalog,
            output=options.output or str(Path(folder) / "model"),
            pictures=options.pictures,
            epochs=options.epochs,
            threads=options.threads,
            seed=options.seed,
        )
        if options.sheet:
            splits, _ = read_examples(draw_candidates(config), config.image_size_px, seed=config.seed)
            draw_sheet(splits["train"], options.sheet)
        report = train_zoom(config)
        print_zoom(report.metrics)
        zoomed, pictures = dropped(config, report.output)
        print(f"untouched pictures of test products found zoomed: {zoomed} of {pictures}, {zoomed / pictures:.1%}")


if __name__ == "__main__":
    main()
