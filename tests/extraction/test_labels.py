import pytest

from atlas_ray.crawl.store import Store
from atlas_ray.extraction.page import Page
from tests.extraction.pages import OFFER, PRODUCT, STORE, URL, page_of, product

BARE = {name: value for name, value in PRODUCT.items() if name not in ("brand", "sku")}


@pytest.mark.parametrize(
    "body",
    [
        "<table><tr><th>Brand</th><td>ACME</td></tr><tr><td>Item number:</td><td>A-77</td></tr></table>",
        "<table><tr><td>Marke:</td><td><a href=/acme>ACME</a></td><td>Art.-Nr.:</td><td>A-77</td></tr></table>",
        "<dl><dt>Brand Name<dd>ACME<dt>Артикул<dd>A-77</dl>",
        "<p>Product code: A-77</p><span>make/manufacturer: <b>ACME</b></span>",
    ],
)
def test_labels_tell_what_the_data_leaves_out(body: str) -> None:
    found = product(page_of(BARE, body=body))
    assert (found.brand, found.sku) == ("ACME", "A-77")
    assert found.origins["brand"] == found.origins["sku"] == "markup"
    assert product(page_of({**PRODUCT, "brand": "Other"}, body=f"{body}<h2>Other</h2>")).brand == "Other"


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("itm/302474151804", "302474151804"),
        ("anvils/anvil-2024-1609583.html", "1609583"),
        ("store/122725?pid=260591", "260591"),
        ("p/anvil?utm=123456789", None),
        ("p/anvil-2024", None),
    ],
)
def test_the_number_in_the_address_is_the_last_resort(path: str, number: str | None) -> None:
    found = product(page_of(BARE, url=f"https://www.shop.example/{path}"))
    assert found.sku == number
    assert found.origins.get("sku") == (number and "url")


@pytest.mark.parametrize(
    ("data", "number"),
    [
        ({"sku": "SKU: 77"}, "77"),
        ({"productID": "TE5-1293 Cover for a sofa"}, "TE5-1293"),
        ({"mpn": "Fake Wounds"}, None),
        ({"sku": "DWFWK"}, "DWFWK"),
        ({"productID": "Fake Wounds", "mpn": "A 77"}, "A 77"),
        ({"sku": "N/A", "mpn": "A 77"}, "A 77"),
        ({"sku": "MODEL 570 EASY II"}, "MODEL 570 EASY II"),
        ({"sku": "Model 570 Easy II"}, "Model 570 Easy II"),
        ({"sku": "RED COTTON SHIRT"}, "RED COTTON SHIRT"),
        ({"sku": "12 345 678"}, "12 345 678"),
        ({"sku": "SKU: AB 12 CD"}, "AB 12 CD"),
        ({"sku": "Executive &amp; Anvil", "mpn": "A 77"}, "A 77"),  # the title
    ],
)
def test_numbers(data: dict[str, str], number: str | None) -> None:
    assert product(page_of({**BARE, **data})).sku == number


NUMBERED = {**PRODUCT, "mpn": "EA-1", "offers": {**OFFER, "gtin13": "4006381333931"}}
SIZES = [{**PRODUCT, "sku": f"925872-{size}"} for size in (38, 39)]


@pytest.mark.parametrize(
    ("block", "body", "number", "origin"),
    [
        (NUMBERED, "<p>Product code: 71-3</p>", "71-3", "markup"),
        (NUMBERED, "<p>Product code 71-3</p>", "71-3", "markup"),
        (NUMBERED, "<p><b>SKU:</b> <span>71-3</span></p>", "71-3", "markup"),
        (NUMBERED, "<h4>Bestellnummer:</h4><div> 71-3 </div><p>Bestellnummer 71-3</p>", "71-3", "markup"),
        # Several numbers, of the parts or of what else there is; a row among other properties; words.
        (NUMBERED, "<p>SKU: 71-3</p><p>SKU: 71-4</p>", "925872", "json-ld"),
        (NUMBERED, "<table><tr><th>Article number</th><td>71-3</td></tr></table>", "925872", "json-ld"),
        (NUMBERED, "<p>Product code: see below</p><p>Order 71-3</p>", "925872", "json-ld"),
        # What is stated, also where it is stated as the maker's number.
        (NUMBERED, "<p>SKU: 92.58.72</p>", "925872", "json-ld"),
        (NUMBERED, "<p>Ref: EA 1</p>", "925872", "json-ld"),
        (NUMBERED, "<p>Article number: 4006381333931</p>", "925872", "json-ld"),
        # A sign in the page's code stands for the product's number where the data has those of its sizes.
        (SIZES, '<span class="big sku">925872</span>', "925872", "markup"),
        (SIZES, '<span data-qa="product-reference">92/58</span>', "92/58", "markup"),
        (SIZES, '<span class="sku">1</span><span class="sku">2</span>', "925872-38", "json-ld"),
        (NUMBERED, '<span class="sku">71-3</span>', "925872", "json-ld"),
        ({**PRODUCT, "sku": None}, '<span class="sku">71-3</span>', "71-3", "markup"),
        ({**PRODUCT, "sku": None}, "<table><tr><td>ID Produto</td><td>713</td></tr></table>", "713", "markup"),
    ],
)  # fmt: skip
def test_the_number_that_a_page_shows(block: object, body: str, number: str, origin: str) -> None:
    found = product(page_of(block, body=body))
    assert (found.sku, found.origins["sku"]) == (number, origin)
    store = Store(name="shop", start_urls=STORE.start_urls, fields={"sku": "html::attr(data-n)"})
    page = Page(URL, page_of(block, body=body).body.replace(b"<html", b"<html data-n=S7"))
    assert product(page, store).sku == "S7"


@pytest.mark.parametrize("text", ["$brand", "${brand}", "{{ product.brand }}", "%BRAND%", "undefined", "null", "N/A"])
def test_a_template_that_was_not_filled_in(text: str) -> None:
    page = page_of({**PRODUCT, "brand": text, "sku": text}, body="<p>Brand: ACME</p><p>SKU: 77</p>")
    assert (product(page).brand, product(page).sku) == ("ACME", "77")
    assert product(page_of({**PRODUCT, "brand": text})).brand is None


@pytest.mark.parametrize(
    ("text", "brand"),
    [
        ("ACME | Shop", "ACME"), ("ACME | Works", "ACME | Works"), ("A$AP", "A$AP"), ("$uicideboy$", "$uicideboy$"),
        ("Null Co", "Null Co"),
    ],
)  # fmt: skip
def test_brands(text: str, brand: str) -> None:
    assert product(page_of({**PRODUCT, "brand": text}, head="<title>Anvil | Shop</title>")).brand == brand


@pytest.mark.parametrize(
    ("body", "brand", "origin"),
    [
        ("<p>Brand: Yongli</p>", "Yongli", "markup"),
        ("<p>Brand: Yongli</p><p>Shipped by  acme\n works.</p>", "ACME Works", "json-ld"),  # shown somewhere
        ("<p>Brand: Yongli</p><p>ACME Workshop</p>", "Yongli", "markup"),
        ("<p>Brand: Yongli</p><script>acme works</script>", "Yongli", "markup"),
        ("<p>Made by Yongli</p>", "ACME Works", "json-ld"),
        ("<p>Brand: Yongli</p><img alt='ACME works'>", "ACME Works", "json-ld"),
        ("<p>Brand: {{ brand }}</p>", "ACME Works", "json-ld"),
        ("<p>Brand: N/A</p>", "ACME Works", "json-ld"),
    ],
)
def test_a_labelled_brand_goes_before_one_that_is_shown_nowhere(body: str, brand: str, origin: str) -> None:
    found = product(page_of({**PRODUCT, "brand": "ACME Works"}, body=body))
    assert (found.brand, found.origins["brand"]) == (brand, origin)


def test_a_brand_in_a_script_without_spaces() -> None:
    assert (
        product(page_of({**PRODUCT, "brand": "无印良品"}, body="<p>品牌: MUJI</p><p>无印良品旗舰店</p>")).brand
        == "无印良品"
    )


@pytest.mark.parametrize("text", ["N/A", "null", "${brand}", "{{brand}}"])
def test_a_label_without_a_brand(text: str) -> None:
    assert product(page_of({**PRODUCT, "brand": None}, body=f"<p>Brand: {text}</p>")).brand is None


@pytest.mark.parametrize(
    "body",
    [
        "<strong>Product Code - </strong>123456",
        "<div><strong>Product Code - </strong>123456<br><i>a</i><i>b</i><i>c</i></div>",
        "<p>Product Code - 123456</p>",
        "<p>Product code – <b>123456</b></p>",
        "<label>SKU</label>: 123456",
        "<b>Item No.</b> # 123456<hr>",
        "<span>SKU #123456</span>",
        "<em>Artikelnummer:</em> 123456 (auf Lager)",
        "<li><b>Item #</b> 123456</li>",
        "<p><b>Référence =</b> <i>123456</i></p>",
    ],
)
def test_a_label_and_a_number_after_any_sign(body: str) -> None:
    found = product(page_of(BARE, body=body))
    assert (found.sku, found.origins["sku"]) == ("123456", "markup")


@pytest.mark.parametrize(
    "body",
    [
        "<strong>Product Code</strong>of conduct 5",
        "<p>Executive - Anvil 123456</p>",
        "<b>Our SKU - </b>",
        "<strong>Delivery - </strong>123456",
        "<p>Product Code - see below</p>",
    ],
)
def test_what_is_no_labelled_number(body: str) -> None:
    assert product(page_of(BARE, body=body)).sku is None


@pytest.mark.parametrize("shown", ["MODEL 570 EASY II", "Model 570 Easy II", "570"])
def test_a_part_of_the_stated_number_does_not_take_its_place(shown: str) -> None:
    assert product(page_of({**PRODUCT, "sku": "MODEL 570 EASY II"}, body=f"<p>SKU: {shown}</p>")).sku == (
        "MODEL 570 EASY II"
    )
