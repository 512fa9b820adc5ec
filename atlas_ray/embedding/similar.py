"""Similar products: questions to the embeddings of a finished run, by a product or by a picture and its texts."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atlas_ray.artifacts import load_artifact
from atlas_ray.embedding.combine import joined_vectors
from atlas_ray.embedding.index import ProductIndex
from atlas_ray.embedding.run import JOB
from atlas_ray.embedding.settings import SimilarConfig
from atlas_ray.errors import EmbeddingError, ItemError
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities.products import PICTURE
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.runs.run_record import read_run


def similar_products(config: SimilarConfig) -> pa.Table:
    """Find the products that are most similar to a product, or to a picture and texts.

    Returns:
        `product_id`, `similarity` (cosine) and `category_path` (the label), the most similar first.

    Raises:
        EmbeddingError: if the run is not finished, the product has no vector, the model is not the
            one that made the embeddings, or it cannot make anything of what is given.
    """
    output, run = finished_run(config.embeddings)
    if config.product_id is None:
        vector = _vector_of(config, run)
        index = ProductIndex.open(output)
    else:
        index = ProductIndex.open(output)
        found = index.vector(config.product_id)
        if found is None:
            raise EmbeddingError(
                f"{output} has no vector of a product {config.product_id!r}: "
                "it is not in the catalogue, or all of it is in quarantine"
            )
        vector = found
    nearest = index.nearest(vector[None], config.k + 1).select(["product_id", "similarity", "category_path"])
    if config.product_id is not None:
        nearest = nearest.filter(pc.not_equal(nearest["product_id"], config.product_id))
    return nearest.slice(0, config.k)


def finished_run(embeddings: str) -> tuple[str, dict[str, Any]]:
    """Return the folder of an embedding run, and its account.

    Raises:
        EmbeddingError: if it is none, is not finished, or has no product.
    """
    output = storage.absolute(embeddings)
    run = read_run(output)
    if run is None or run.get("job") != JOB:
        raise EmbeddingError(f"{output} is no finished embedding run; make one with `atlas-ray embed`")
    if not run["counts"]["products"]:
        raise EmbeddingError(f"{output}: no product could be embedded; {output}/quarantine says why")
    return output, run


def _vector_of(config: SimilarConfig, run: dict[str, Any]) -> NDArray[np.float32]:
    """Embed the picture and the texts of a question."""
    assert config.model is not None
    artifact = load_artifact(config.model)
    made_with = run["identity"]["model_id"]
    if artifact.id != made_with:
        raise EmbeddingError(
            f"{config.model} is model {artifact.id}, and {config.embeddings} was made with {made_with}; "
            "give that one, or embed the catalogue with this one"
        )
    given = {PICTURE: config.image, "title": config.title, "description": config.description}
    for name, value in given.items():
        if value is not None and name not in artifact.modalities:
            raise EmbeddingError(
                f"{config.model} reads {' and '.join(artifact.modalities)}; it makes nothing of a {name}"
            )
    predictor = PathPredictor(artifact)
    try:
        with ObjectReader(threads=1) as reader:
            content = None if config.image is None else reader.read(config.image)
        vectors, refused = predictor.embed([content], {name: [given[name]] for name in artifact.texts})
        if refused:
            raise refused[0]
    except ItemError as error:
        raise EmbeddingError(f"--image {config.image}: {error}") from None
    if not vectors.any():
        raise EmbeddingError("there is nothing in the texts that were given")
    vector: NDArray[np.float32] = joined_vectors(vectors, artifact.feature_widths)[0]
    return vector
