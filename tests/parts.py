"""What several test modules build on."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image

from atlas_ray.artifacts import save_artifact
from atlas_ray.models import EncoderDecoder, EncoderDecoderConfig
from atlas_ray.taxonomy import Taxonomy, Vocabulary


def make_artifact(uri: str, taxonomy: Taxonomy, seed: int = 0, image_size_px: int = 32) -> str:
    """Write a small untrained model; its answers are fixed by the seed."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary.of(taxonomy)
    config = EncoderDecoderConfig(
        vocabulary_size=len(vocabulary),
        backbone="resnet18",
        image_size_px=image_size_px,
        pooled_size=4,
        embedding_dim=16,
        attention_dim=16,
        decoder_dim=16,
    )
    return save_artifact(uri, EncoderDecoder(config), vocabulary=vocabulary, taxonomy=taxonomy, metrics={})


def rows(folder: str | Path, table: str) -> list[dict[str, Any]]:
    """Read a table, sorted by its id; [] where it has no file."""
    path = Path(folder) / table
    if not path.exists() or not list(path.glob("*.parquet")):
        return []
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return sorted(found, key=lambda row: row.get("image_id") or row["product_id"])


def picture(number: int, size: int = 60) -> bytes:
    """Return a JPEG of noise, another one for each number."""
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 5 + 9 * number).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
