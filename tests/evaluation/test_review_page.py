"""The page of a review in a real browser, from its file and from its server."""

import csv
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from playwright.sync_api import Browser, Dialog, Page, expect

from atlas_ray.catalog.corrections import RelabelConfig, relabel
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError, OutputError
from atlas_ray.evaluation.review import ReviewConfig, review
from atlas_ray.evaluation.review_server import MAX_BODY_BYTES, Corrections, review_server
from atlas_ray.formats.spreadsheet import unguarded
from atlas_ray.schemas import IMAGES, PRODUCTS, QUARANTINE, UNDETERMINED
from atlas_ray.taxonomy import Taxonomy
from tests.support.pages import SIZES, watched_page
from tests.support.parts import picture, scored_run

expect.set_options(timeout=30_000)
SHIRTS, SHOES, SAREES, WILD, KURTA = (
    ("Men", "Shirts"), ("Men", "Shoes"), ("Women", "साड़ी"), ("</script", "=1+1 <b 'x\" & co"), ("Women", "Été Kurtas"),
)  # fmt: skip
HOSTILE = "=cmd|'/c calc'!A1 </script><img src=x onerror=alert(1)>\n,\"quoted\""


def leaves() -> list[tuple[str, ...]]:
    return [SHIRTS, SHOES, SAREES, WILD, KURTA, *(("Home", f"Shelf {n:04d}", "Box") for n in range(3000))]


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """A catalogue and a run of three products; the ids and titles of one mean harm."""
    (tmp_path / "1.jpg").write_bytes(picture(1, 120))
    catalog = tmp_path / "catalog"
    titles = {HOSTILE: "<script>alert('title')</script>", "b": "A saree", "c": None}
    rows = [
        {"product_id": name, "title": title, "image_uris": [str(tmp_path / "1.jpg")]} for name, title in titles.items()
    ]
    images = [
        {"image_id": n, "product_id": name, "image_uri": str(tmp_path / "1.jpg")} for n, name in enumerate(titles)
    ]
    for name, schema, items in (("products", PRODUCTS, rows), ("images", IMAGES, images)):
        (catalog / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(items, schema=schema), catalog / name / "a.parquet")
    (catalog / "taxonomy.json").write_text(Taxonomy(leaves(), name="shop <b>").to_json())
    products: list[dict[str, Any]] = [
        {
            "product_id": name, "category_path": list(SHIRTS), "probability": 0.5 + n / 100,
            "level_probabilities": [0.9, 0.5], "decided_level": 2, "image_uri": str(tmp_path / "1.jpg"),
            "alternatives": [{"category_path": list(WILD), "probability": 0.3}],
        }
        for n, name in enumerate(titles)
    ]  # fmt: skip
    scored_run(tmp_path / "run", products, identity={"catalog": str(catalog), "model_id": "m"})
    return str(catalog)


@pytest.fixture
def folder(shop: str, tmp_path: Path) -> Path:
    review(ReviewConfig(run=str(tmp_path / "run"), output=str(tmp_path / "review")))
    return tmp_path / "review"


@pytest.fixture(params=SIZES.values(), ids=list(SIZES))
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    with watched_page(browser, request.param, sites=("file:", "http://127.0.0.1:")) as opened:
        yield opened


def rows_of(path: Path) -> dict[str, str]:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        cells = list(csv.reader(stream))
    assert cells[0] == ["product_id", "corrected_category_path"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in cells for cell in row)
    return {unguarded(product_id): unguarded(path) for product_id, path in cells[1:]}


def test_decisions_by_keys_go_into_a_file_that_relabel_takes(
    page: Page, folder: Path, shop: str, tmp_path: Path
) -> None:
    page.goto((folder / "review.html").as_uri())
    expect(page.locator("#count")).to_have_text("0 of 3 decided")
    expect(page.locator(".product.now")).to_contain_text("<script>alert('title')</script>")
    page.keyboard.press("2")  # the second is right
    expect(page.locator("#count")).to_have_text("1 of 3 decided")
    expect(page.locator(".product.now h2")).to_have_text("A saree")
    page.keyboard.press("/")
    page.keyboard.type("sarees nothing")
    expect(page.locator("#picker")).to_contain_text("none has all of these words")
    page.locator("#picker input").fill("साड़ी")
    expect(page.locator("#picker li")).to_have_text(["Women > साड़ी"])
    page.keyboard.press("Enter")
    expect(page.locator(".product.now h2")).to_have_text("c")
    page.keyboard.press("o")
    page.keyboard.type("ETE")  # without its accents
    expect(page.locator("#picker li").first).to_have_text("Women > Été Kurtas")
    page.locator("#picker input").fill("box")
    expect(page.locator("#picker")).to_contain_text("the first 60 of 3,000")
    page.locator("#picker input").fill("box 2999")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("All 3 are decided")
    with page.expect_download() as download:
        page.locator("#save").click()
    file = tmp_path / "corrections.csv"
    download.value.save_as(file)
    expected = {HOSTILE: " > ".join(WILD), "b": "Women > साड़ी", "c": "Home > Shelf 2999 > Box"}
    assert rows_of(file) == expected
    report = relabel(RelabelConfig(catalog=shop, corrections=str(file), output=str(tmp_path / "new")))
    assert (report.outcomes["labelled"], report.quarantined.total()) == (3, 0)
    labels = pq.read_table(tmp_path / "new" / "products")
    assert dict(zip(*(labels[name].to_pylist() for name in ("product_id", "category_path")), strict=True)) == {
        HOSTILE: list(WILD), "b": list(SAREES), "c": ["Home", "Shelf 2999", "Box"],
    }  # fmt: skip


def test_progress_is_kept_when_the_page_is_opened_again(page: Page, folder: Path) -> None:
    page.goto((folder / "review.html").as_uri())
    page.locator(".product").nth(1).locator("[data-choice]").first.click()
    expect(page.locator("#count")).to_have_text("1 of 3 decided")
    page.reload()
    expect(page.locator("#count")).to_have_text("1 of 3 decided")
    expect(page.locator("#status")).to_contain_text("1 correction kept in this browser from before")
    expect(page.locator(".product.done")).to_contain_text("A saree")
    page.locator("#only").click()
    expect(page.locator(".product:visible")).to_have_count(2)
    page.locator("#only").click()
    page.locator(".product").nth(1).locator("[aria-pressed=true]").click()  # takes it back
    expect(page.locator("#count")).to_have_text("0 of 3 decided")


def test_two_tabs_of_a_browser_know_of_one_another(browser: Browser, folder: Path) -> None:
    context = browser.new_context()
    one, other = context.new_page(), context.new_page()
    for tab in (one, other):
        tab.goto((folder / "review.html").as_uri())
    one.locator(".product").nth(1).locator("[data-choice]").first.click()
    expect(other.locator("#count")).to_have_text("1 of 3 decided")
    other.locator(".product").nth(2).locator("[data-choice]").first.click()
    expect(one.locator("#count")).to_have_text("2 of 3 decided")
    context.close()


def test_keys_of_another_alphabet(page: Page, folder: Path) -> None:
    page.goto((folder / "review.html").as_uri())
    press = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key, code, bubbles: true }))"
    page.evaluate(press, ["о", "KeyJ"])  # a Russian keyboard
    expect(page.locator(".product.now h2")).to_have_text("A saree")
    page.evaluate(press, ["٢", "Digit2"])  # an Arabic one
    expect(page.locator("#count")).to_have_text("1 of 3 decided")


def test_a_browser_that_keeps_nothing_says_so_before_the_page_closes(browser: Browser, folder: Path) -> None:
    context = browser.new_context()
    context.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('none', 'SecurityError'); }")
    page = context.new_page()
    page.goto((folder / "review.html").as_uri())
    page.locator(".product [data-choice]").first.click()
    expect(page.locator("#status")).to_contain_text("this browser keeps nothing: save before you close the page")
    asked = []

    def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", leave)
    page.close(run_before_unload=True)
    page.wait_for_event("close")
    assert asked == ["beforeunload"]
    context.close()


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[str, Corrections]]:
    corrections = Corrections(str(folder))
    server = review_server((folder / "review.html").read_bytes(), corrections)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.address, corrections
    server.shutdown()
    server.server_close()


def test_each_decision_is_saved_by_the_server_at_once(
    page: Page, served: tuple[str, Corrections], folder: Path, browser: Browser
) -> None:
    page.goto(served[0])
    expect(page.locator("#status")).to_contain_text("each one is saved there at once")
    page.keyboard.press("2")
    expect(page.locator("#status")).to_contain_text("1 correction saved in corrections.csv")
    assert rows_of(folder / "corrections.csv") == {HOSTILE: " > ".join(WILD)}
    other = browser.new_context().new_page()  # another person's browser sees it, and loses nothing
    other.goto(served[0])
    expect(other.locator("#count")).to_have_text("1 of 3 decided")
    other.locator(".product").nth(2).locator("[data-choice]").first.click()
    expect(other.locator("#status")).to_contain_text("2 corrections saved")
    other.context.close()
    page.locator(".product").nth(1).locator("[data-choice]").first.click()
    expect(page.locator("#status")).to_contain_text("3 corrections saved")
    assert rows_of(folder / "corrections.csv").keys() == {HOSTILE, "b", "c"}
    assert {path.name for path in folder.iterdir()} == {"corrections.csv", "queue.csv", "queue.parquet", "review.html"}
    again = Corrections(str(folder))
    assert again.paths == {HOSTILE: WILD, "b": SHIRTS, "c": SHIRTS}


def test_a_server_that_went_away_is_told_and_nothing_is_lost(browser: Browser, folder: Path) -> None:
    server = review_server((folder / "review.html").read_bytes(), Corrections(str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_context().new_page()
    page.goto(server.address)
    expect(page.locator("#status")).to_contain_text("saved there at once")
    server.shutdown()
    server.server_close()
    page.keyboard.press("1")
    expect(page.locator("#status")).to_contain_text("Not saved in the folder")
    expect(page.locator("#status")).to_contain_text("kept in this browser")
    assert json.loads(page.evaluate("Object.values(localStorage)[0]")) == [[HOSTILE, list(SHIRTS)]]
    page.context.close()


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"headers": {"Host": "evil.example"}}, 403),
        ({"headers": {"Origin": "http://evil.example"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"headers": {"Content-Length": str(MAX_BODY_BYTES + 1)}}, 413),
        ({"path": "../corrections"}, 404),
        ({"path": "corrections.csv"}, 404),
        ({"json": {"changes": [["nobody", ["A"]]]}}, 422),
        ({"json": {"changes": [["b", "Men"]]}}, 422),
        ({"json": {"changes": [["b", []]]}}, 422),
        ({"json": {"changes": [["b", ["Men > Women"]]]}}, 422),
        ({"json": {"changes": [["b", ["\ud800"]]]}}, 422),
        ({"json": {"changes": 7}}, 422),
        ({"json": [1]}, 422),
    ],
)
def test_the_server_takes_only_what_its_own_page_sends(
    served: tuple[str, Corrections], folder: Path, change: dict[str, Any], status: int
) -> None:
    address, corrections = served
    body = change.get("json", {"changes": [["b", ["Men", "Shoes"]]]})
    headers = {"Content-Type": "application/json", **change.get("headers", {})}
    request = requests.Request(
        "POST", address + change.get("path", "corrections"), data=json.dumps(body), headers=headers
    )
    prepared = request.prepare()
    if "Content-Length" in headers:
        prepared.headers["Content-Length"] = headers["Content-Length"]
    if ".." in change.get("path", ""):
        prepared.url = address + change["path"]  # not made shorter by the client
    with requests.Session() as session:
        assert session.send(prepared, timeout=30).status_code == status
    assert corrections.paths == ({"b": SHOES} if status == 200 else {})
    assert (folder / "corrections.csv").exists() == (status == 200)


@pytest.mark.long
def test_without_the_secret_there_is_nothing(served: tuple[str, Corrections]) -> None:
    root = served[0][: served[0].index("/", 8)]
    for path in ("/", "/review.html", "/corrections", "/queue.csv"):
        assert requests.get(root + path, timeout=30).status_code == 404
    answer = requests.get(served[0], timeout=30)
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"


@pytest.mark.long
def test_the_command_serves_until_it_is_stopped(folder: Path) -> None:
    command = [sys.executable, "-m", "atlas_ray", "review", "--serve", "--output", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("review at ").strip()
        assert address.startswith("http://127.0.0.1:")
        assert f"{folder}/corrections.csv; stop with Ctrl-C" in process.stdout.readline()
        body = {"changes": [["c", list(SHOES)]]}
        assert requests.post(f"{address}corrections", json=body, timeout=30).json()["saved"] == 1
        assert main(["review", "--serve", "--output", str(folder)]) == 2  # one at a time
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert rows_of(folder / "corrections.csv") == {"c": "Men > Shoes"}
    assert not (folder / "lease.json").exists()


def test_what_cannot_be_served(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "--serve", "--output", str(tmp_path / "nowhere")]) == 2
    assert "holds no review" in capsys.readouterr().err
    assert main(["review", "--serve"]) == 2
    (folder / "corrections.csv").write_text("product_id,corrected_category_path\nsomebody,Men > Shoes\n")
    with pytest.raises(OutputError, match=r"row 2: this review has no product 'somebody'; .*move it away first"):
        Corrections(str(folder))
    with pytest.raises(CatalogError, match="--run"):
        Corrections(str(tmp_path / "nowhere"))


def test_lists_of_a_migration_and_of_relabel(browser: Browser, shop: str, tmp_path: Path) -> None:
    undetermined = [
        {
            "product_id": "b",
            "category_path": ["Old", "Cloth"],
            "reason": "split",
            "candidates": [["Women"], list(SHOES)],
        },
        {"product_id": "gone", "category_path": ["Old"], "reason": "removed", "candidates": []},
    ]  # fmt: skip
    refused = [
        {"image_id": -1, "product_id": name, "stage": "relabel", "error_code": "unknown_category", "message": "no <b>"}
        for name in ("c", None, "c")
    ]
    for name, schema, rows in (("rescore", UNDETERMINED, undetermined), ("quarantine", QUARANTINE, refused)):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / name / "a.parquet")
    found = review(
        ReviewConfig(run=str(tmp_path / "run"), products=str(tmp_path / "rescore"), output=str(tmp_path / "1"))
    )
    assert found.queue["product_id"].to_pylist() == ["b", "gone"]
    assert found.queue["title"].to_pylist() == ["A saree", None]
    assert found.queue["note"].to_pylist() == ["split; it was Old > Cloth", "removed; it was Old"]
    page = browser.new_context().new_page()
    page.goto((tmp_path / "1" / "review.html").as_uri())
    assert page.locator(".product img").count() == 1
    first = page.locator(".product").first
    expect(first.locator("[data-choice]").first).to_contain_text("below Women")
    first.locator("[data-choice]").first.click()
    expect(page.locator("#picker li")).to_have_text(["Women > साड़ी", "Women > Été Kurtas"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(first.locator(".other")).to_have_text("Women > Été Kurtas")
    page.context.close()

    config = ReviewConfig(catalog=shop, products=str(tmp_path / "quarantine"), output=str(tmp_path / "2"))
    listed = review(config)
    assert listed.queue.select(["product_id", "note"]).to_pylist() == [
        {"product_id": "c", "note": "unknown_category: no <b>"}
    ]
    assert (listed.products, listed.listed, listed.catalog) == (2, True, shop)
    with pytest.raises(CatalogError, match="no list of products to decide on"):
        review(ReviewConfig(catalog=shop, products=f"{shop}/images", output=str(tmp_path / "3")))
    with pytest.raises(ConfigError, match="name a scoring run with --run, or a list"):
        ReviewConfig(products="list", output="x")
