"""The pages that commands write, opened from their files in a real browser."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from atlas_ray.evaluation.paths import evaluate
from atlas_ray.reports.contact_sheet import Cell, Section, write_contact_sheet
from atlas_ray.reports.page import Share, document, json_text, section, summary, table
from tests.support.pages import SIZES, watched_page
from tests.support.parts import picture, scored_run

NAMES = ("Shirts", "Jackets", "<img src=x onerror=alert(1)>", "साड़ी")


@pytest.fixture(params=itertools.product(SIZES, ("light", "dark")), ids="-".join)
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    size, scheme = request.param
    with watched_page(browser, SIZES[size], color_scheme=scheme) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 60 products, a third of whose shirts are taken for jackets."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "1.jpg").write_bytes(picture(1, 200))
    rows = []
    for number in range(60):
        true = ["Men", NAMES[number % 4]]
        guess = ["Men", "Jackets"] if number % 12 == 0 else true
        rows.append({
            "product_id": f"p{number}", "category_path": guess, "true_category_path": true,
            "probability": 0.4 + number / 100, "level_probabilities": [0.99, 0.4 + number / 100],
            "decided_level": 2, "split": "test", "alternatives": [], "image_uri": str(folder / "1.jpg"),
            "store": f"shop {number % 3}", "price": 3.0 * number,
        })  # fmt: skip
    scored_run(folder / "run", rows)
    evaluate(str(folder / "run"))
    return folder / "run" / "evaluation" / "report.html"


def brightness(page: Page, selector: str, style: str) -> float:
    """Return how bright a colour of an element is, 0 to 255."""
    read = f"element => getComputedStyle(element).{style}.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    shades: list[float] = page.locator(selector).first.evaluate(read)
    return sum(shades) / 3


def test_a_report_says_what_it_found_in_words(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    summary_card = page.locator(".summary")
    expect(summary_card.locator("p").first).to_have_text(
        "91.7% of 60 test products right; “Men > Shirts” is taken for “Men > Jackets” most often, 5 times"
    )
    expect(summary_card).to_contain_text("(95% interval)")
    expect(summary_card.locator(".tile").first).to_contain_text("91.7%")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (brightness(page, "body", "backgroundColor") < 60) == dark
    assert (brightness(page, ".chart text", "fill") > 190) == dark
    size = page.locator(".chart text").first.evaluate("text => text.getBoundingClientRect().height")
    assert size >= 10  # of the letters of a drawing, in px
    assert page.locator(".chart").count() == 5


def test_a_column_sorts_both_ways(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    missed = page.locator("section", has=page.get_by_role("heading", name="The paths most often missed"))
    stores = page.locator("section", has=page.get_by_role("heading", name="By store", exact=True))
    names = stores.locator("td:first-child")
    head = stores.get_by_role("columnheader", name="store")
    head.get_by_role("button").click()
    expect(names).to_have_text(["shop 0", "shop 1", "shop 2"])
    head.get_by_role("button").press("Enter")
    expect(names).to_have_text(["shop 2", "shop 1", "shop 0"])
    assert head.get_attribute("aria-sort") == "descending"
    stores.get_by_role("columnheader", name="exact path").get_by_role("button").click()
    expect(names.last).to_have_text("shop 0")  # the one with all the mistakes
    expect(missed.locator("tbody tr")).to_have_count(1)


def test_a_contact_sheet(page: Page, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (90, 60), "teal").save(buffer, "PNG")
    cells = [Cell(buffer.getvalue(), "x" * 300), Cell(b"broken", "</style><script>alert(1)</script>")]
    write_contact_sheet(str(tmp_path), [Section("Surest", cells), Section("None", [])])
    page.goto((tmp_path / "contact-sheet.html").as_uri())
    expect(page.locator(".summary")).to_have_text("2 pictures in 2 groups")
    assert page.locator(".grid img").evaluate("image => image.naturalWidth") == 160
    expect(page.locator(".missing")).to_have_text("not_an_image")


def test_numbers_sort_by_what_they_are(page: Page, tmp_path: Path) -> None:
    rows = [("a", Share(0.09), 1_200), ("b", Share(0.1, (0.05, 0.2)), 3), ("c", Share(None), 70)]
    text = document("t", [section("s", table(("name", "share", "count"), rows))])
    (tmp_path / "t.html").write_text(text)
    page.goto((tmp_path / "t.html").as_uri())
    for column, order in (("share", "bac"), ("share", "abc"), ("count", "acb")):
        page.get_by_role("columnheader", name=column).get_by_role("button").click()
        expect(page.locator("td:first-child")).to_have_text(list(order))
    expect(page.locator("tbody")).to_contain_text("1,200")
    expect(page.locator("tbody")).to_contain_text("10.0% 5.0 to 20.0")


def test_data_of_a_page_cannot_leave_its_element() -> None:
    hostile = "</script><script>alert(1)//<!--\u2028&"
    text = json_text({"name": hostile})
    assert not set("<>&\u2028") & set(text)
    page = document("t", [summary([hostile])], data=[hostile])
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
