import pytest

from atlas_ray.extraction.data_layer import brand_in_scripts
from tests.extraction.pages import PRODUCT, page_of, product

TITLE = "AC-ME Anvil “Executive”"


def brand(script: str, number: str | None = "925872") -> str | None:
    return brand_in_scripts(page_of(body=f"<script>{script}</script>"), TITLE, number)


@pytest.mark.parametrize(
    "script",
    [
        '{"name":"AC-ME Anvil \\u201cExecutive\\u201d","price":5,"brand":"ACME Ltd"}',
        """dataLayer.push({'brand': 'ACME Ltd', 'id': '925872'});""",
        "push({ id: 925872, brand: 'ACME Ltd' })",
        '{"sku":"92-58-72","offers":{"price":"5"},"size":{"cm":1}, "x":1},{"productId":925872,"brandName":"ACME Ltd"}',
    ],
)
def test_a_brand_beside_the_products_name_or_number(script: str) -> None:
    assert brand(script) == "ACME Ltd"


def test_its_spelling_is_that_of_the_title() -> None:
    assert brand('{"id":"925872","brand":"ac me"}') == "AC-ME"
    assert brand('{"id":"925872","brand":"exec"}') == "exec"  # a part of a word is no spelling


@pytest.mark.parametrize(
    "script",
    [
        '{"name":"Hammer","brand":"Other"}',
        '{"brand":"Other","items":[{"id":"925872"}]}',
        '{"item":{"id":"925872"},"brand":"Other"}',
        '{"id":"925872","x":{"brand":"Other"}}',
        '{"id":"925872","brand":""},{"id":"925872","brand":"-"},{"id":"925872","brand":7}',
        '{"id":"925872","brand":"Other' + "x" * 100 + '"}',
        '{"id":"925872","x":"' + "x" * 9000 + '","brand":"Other"}',  # out of reach
    ],
)
def test_what_is_anothers(script: str) -> None:
    assert brand(script) is None


def test_a_short_number_may_be_any() -> None:
    assert brand('{"quantity":77,"brand":"Other"}', number="77") is None
    assert brand('{"quantity":77,"brand":"Other"}', number=None) is None


def test_it_is_the_last_resort() -> None:
    script = '<script>var p = {"id": 925872, "brand": "Other"}</script>'
    assert product(page_of(PRODUCT, body=script)).brand == "ACME"
    found = product(page_of({**PRODUCT, "brand": None}, body=script))
    assert (found.brand, found.origins["brand"]) == ("Other", "script")
    assert product(page_of({**PRODUCT, "brand": None}, body=script + "<p>Brand: ACME</p>")).brand == "ACME"
