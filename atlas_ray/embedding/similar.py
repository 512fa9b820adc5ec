"""Similar products: questions to the embeddings of a finished run, by a product or by a picture and its texts."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atlas_ray.embedding.combine import joined_vectors
from atlas_ray.embedding.index import ProductIndex
from atlas_ray.embedding.settings import SimilarConfig
from atlas_ray.errors import EmbeddingError, ItemError
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities import PICTURE
from atlas_ray.runs.embedded import Embedded, open_embedded


def similar_products(config: SimilarConfig) -> pa.Table:
    """Find the products that are most similar to a product, or to a picture and texts.

    Returns:
        `product_id`, `similarity` (cosine) and `category_path` (the label), the most similar first.

    Raises:
        EmbeddingError: if the run is not finished, the product has no vector, the model is not the
            one that made the embeddings, or it cannot make anything of what is given.
    """
    embedded = open_embedded(config.embeddings)
    output = embedded.uri
    if config.product_id is None:
        vector = _vector_of(config, embedded)
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


def _vector_of(config: SimilarConfig, embedded: Embedded) -> NDArray[np.float32]:
    """Embed the picture and the texts of a question."""
    from atlas_ray.artifacts import load_network  # it imports PyTorch, which other questions need not
    from atlas_ray.prediction.vectors import Embedder

    model = config.model or embedded.encoder
    if model is None:
        raise EmbeddingError(
            f"{config.embeddings} keeps no copy of model {embedded.model_id}, which made it; name that with --model"
        )
    network = load_network(model)
    if network.encoder_id != embedded.model_id:
        raise EmbeddingError(
            f"{model} is model {network.encoder_id}, and {config.embeddings} was made with {embedded.model_id}; "
            "give that one, or embed the catalogue with this one"
        )
    given = {PICTURE: config.image, "title": config.title, "description": config.description}
    for name, value in given.items():
        if value is not None and name not in network.modalities:
            raise EmbeddingError(f"{model} reads {' and '.join(network.modalities)}; it makes nothing of a {name}")
    predictor = Embedder(network)
    try:
        with ObjectReader(threads=1) as reader:
            content = None if config.image is None else reader.read(config.image)
        vectors, refused = predictor.embed([content], {name: [given[name]] for name in network.texts})
        if refused:
            raise refused[0]
    except ItemError as error:
        raise EmbeddingError(f"--image {config.image}: {error}") from None
    if not vectors.any():
        raise EmbeddingError("there is nothing in the texts that were given")
    vector: NDArray[np.float32] = joined_vectors(vectors, network.feature_widths)[0]
    return vector
