import itertools

import pyarrow as pa

from atlas_ray import schemas


def test_image_ids_are_stable_and_distinct() -> None:
    ids = schemas.image_ids(["p1", "p1", "p2"], ["a.jpg", "b.jpg", "a.jpg"])
    assert ids.dtype == "int64"
    assert len(set(ids.tolist())) == 3
    # written down: output of an earlier run must keep its meaning
    assert schemas.image_ids(["10001"], ["s3://shop/1.jpg"]).tolist() == [7655596630552606088]


def test_no_two_pictures_are_named_alike_whatever_their_texts_hold() -> None:
    texts = ["".join(parts) for count in range(5) for parts in itertools.product(("\x1f", "1", "a"), repeat=count)]
    names = list(itertools.product(texts, texts))
    assert len(set(schemas.image_ids(*zip(*names, strict=True)).tolist())) == len(names) == 121**2


def test_texts_ids_are_stable_and_tell_fields_apart() -> None:
    titles, descriptions = ["a", "ab", "a", None, "", "1:a"], ["b", "", None, "a", "a", ""]
    ids = schemas.texts_ids([titles, descriptions])
    assert ids.dtype == "int64"
    assert len(set(ids.tolist())) == len(titles)
    # written down: a later run compares with what an earlier one wrote
    assert schemas.texts_ids([["Red shirt"]]).tolist() == [8464116579209856418]


def test_contract_columns() -> None:
    assert schemas.PREDICTIONS.names == [
        "image_id", "product_id", "image_uri", "sha256", "etag", "texts_id", "category_path", "probability",
        "level_probabilities", "alternatives", "outside_probability", "labels", "other_labels",
        "zoomed_probability", "picture_error", "model_id", "taxonomy_id",
    ]  # fmt: skip
    assert schemas.QUARANTINE.names == [
        "image_id", "product_id", "image_uri", "stage", "error_code", "message", "etag",
    ]  # fmt: skip
    assert schemas.IMAGES.field("image_id").type == pa.int64()
    assert schemas.PRODUCTS.field("image_uris").type == pa.list_(pa.string())
