"""Cost of the searches: exact over 52 leaves, beam over 52 leaves and over a tree of 10,595 nodes.

    python -m benchmarks.search [--tree FILE] [--precision bfloat16]

The large tree is Shopify's published file where --tree names it; without it, a tree of the same
shape is made up. All times are medians of runs taken in turn, in milliseconds a picture.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable

import torch

from atlas_ray.decoding.beam import beam_search
from atlas_ray.decoding.exact import exact_search
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.models.backbones.backbone import fuse_batch_norm
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import DecoderStep, EncoderDecoder
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie, read_taxonomy

LEVELS = (26, 211, 1467, 3724, 3431, 1300, 386, 50)  # nodes a level of Shopify's 2025-08


def made_up() -> Taxonomy:
    """Return a tree with as many nodes a level as Shopify's."""
    above: list[tuple[str, ...]] = [()]
    paths = []
    for level, count in enumerate(LEVELS):
        parents = itertools.islice(itertools.cycle(above[: max(1, len(above) // 2)]), count)
        above = [(*parent, f"{level}-{number}") for number, parent in enumerate(parents)]
        paths += above
    return Taxonomy(paths, name="made-up")


def prepared(taxonomy: Taxonomy, precision: str, batch: int) -> tuple[EncoderDecoder, TrieTensors, torch.Tensor]:
    torch.manual_seed(0)
    vocabulary = Vocabulary.of(taxonomy)
    model = EncoderDecoder(EncoderDecoderConfig(vocabulary_size=len(vocabulary), backbone="resnet101")).eval()
    fuse_batch_norm(model.encoder)
    model.to(getattr(torch, precision)).to(memory_format=torch.channels_last)
    pictures = torch.randint(0, 256, (batch, 3, 150, 150), dtype=torch.uint8)
    return model, TrieTensors(compile_trie(taxonomy, vocabulary)), pictures


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", help="Shopify's categories.en.txt")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    atlas, atlas_tree, pictures = prepared(read_taxonomy("atlas-52"), options.precision, options.batch_size)
    large = read_taxonomy(options.tree) if options.tree else made_up()
    shopify, shopify_tree, _ = prepared(large, options.precision, options.batch_size)
    grid, large_grid = atlas.encode(pictures), shopify.encode(pictures)
    runs: dict[str, Callable[[], object]] = {
        "encoder (ResNet-101, 150 px)": lambda: atlas.encoder(pictures),
        "exact, 52 leaves": lambda: exact_search(DecoderStep(atlas, grid), atlas_tree),
        "beam of 5, 52 leaves": lambda: beam_search(DecoderStep(atlas, grid), atlas_tree),
        f"beam of 5, {len(large.nodes)} nodes": lambda: beam_search(DecoderStep(shopify, large_grid), shopify_tree),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.rounds + 2):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number >= 2:
                times[name].append((time.perf_counter() - started) / options.batch_size * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:32s} {value:7.3f} ms a picture")
    encoder, exact, beam, beam_large = medians.values()
    print(f"exact / encoder: {exact / encoder:.3f}   large beam / small beam: {beam_large / beam:.2f}")


if __name__ == "__main__":
    main()
