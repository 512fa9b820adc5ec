"""The documents of requests and answers, as pydantic checks them and OpenAPI describes them."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, FailFast, Field

from atlas_ray.modalities.texts import FIELDS
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.sources import MAX_URI

Uri = Annotated[str, Field(max_length=MAX_URI)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


# Stop at the first mistake, which is enough for an answer.
Texts = Annotated[list[str | None], FailFast(), BeforeValidator(_listed)]


class RequestFields(BaseModel):
    """The fields of every request, for pictures from files or from URIs."""

    model_config = {"extra": "forbid"}

    within: str = Field("", max_length=4096, description="answer at or below this node: `Women > Ethnic Wear`")
    top_k: int | None = Field(None, ge=1, le=1000, description="paths a picture, at most those the endpoint keeps")
    explain: bool = Field(False, description="add a map of where the model looked, for each level")
    title: Texts = Field(
        default_factory=list, description="of each product, for a model that reads titles; null if there is none"
    )
    description: Texts = Field(default_factory=list, description="of each product, likewise")

    def texts(self, count: int) -> list[dict[str, str | None]]:
        """Return the texts of each of `count` products.

        Raises:
            Problem: 422 if a field has another number of texts.
        """
        columns = {name: texts for name in FIELDS if (texts := getattr(self, name))}
        for name, texts in columns.items():
            if len(texts) != count:
                raise Problem(422, "invalid_request", f"{name}: {len(texts)} texts for {count} products")
        return [{name: texts[row] for name, texts in columns.items()} for row in range(count)]


class CategorizeRequest(RequestFields):
    """Products to categorize, their pictures in object storage."""

    image_uri: Annotated[list[Uri | None], FailFast(), BeforeValidator(_listed)] = Field(
        default_factory=list,
        description="objects under the folders that the endpoint reads, null for a product without a picture; "
        "one may stand without the list, and all may be left out if there are titles or descriptions",
    )

    def uris(self) -> list[str | None]:
        """Return the picture of each product."""
        return self.image_uri or [None] * max(len(self.title), len(self.description))


class Alternative(BaseModel):
    """Another path that the picture may belong to."""

    category_path: list[str]
    probability: float


class Label(BaseModel):
    """A label that the picture may have."""

    label: str
    probability: float


class PictureError(BaseModel):
    """Why a picture has no answer."""

    code: str
    message: str


class Answered(BaseModel):
    """What is said of one picture: its path and the rest, or an error."""

    name: str
    category_path: list[str] | None = None
    probability: float | None = Field(
        None, description="of the path, among all paths that were searched: the taxonomy's, or those in `within`"
    )
    level_probabilities: list[float] | None = None
    alternatives: list[Alternative] | None = None
    outside_probability: float | None = Field(
        None,
        description="the share of what the model would say that is no path that was searched; `probability` is a share "
        "of the rest. Of a classifier over its whole taxonomy it is 0",
    )
    labels: list[Label] | None = Field(
        None, description="of a model of labels, which has no path: those of at least their thresholds"
    )
    other_labels: list[Label] | None = Field(None, description="the less probable ones")
    attention: list[str] | None = Field(
        None, description="a PNG for each level as a data URI, its opacity the attention"
    )
    picture_error: str | None = Field(None, description="why the answer goes by the texts alone")
    picture: str | None = Field(
        None, description="with the maps, the picture as the model sees it: a JPEG as a data URI"
    )
    model_id: str | None = None
    taxonomy_id: str | None = None
    error: PictureError | None = None


class CategorizeAnswer(BaseModel):
    """A result for each picture, in the request's order."""

    results: list[Answered]


class ProblemDocument(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemDocument, "description": text}
    for status, text in (
        (401, "no known token"), (404, "no such model"), (408, "the body came too slowly"), (413, "too large"),
        (422, "not a request of this kind, or an unknown category"), (429, "too many requests, or no room"),
        (503, "no replica of the model answers"), (504, "took too long"),
    )
}  # fmt: skip
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": CategorizeRequest.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        **RequestFields.model_json_schema()["properties"],
                    },
                }
            },
        },
    }
}
