"""The page in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, FileChooser, Page, expect

from atlas_ray.taxonomy import Taxonomy
from tests.support.endpoint import Endpoint, endpoint
from tests.support.pages import SIZES, watched_page
from tests.support.parts import make_fused, picture

pytestmark = pytest.mark.ray

ARTIFACTS = os.environ.get("ATLAS_RAY_TEST_ARTIFACTS")
"""A folder for the screenshots; without it they go with the test's own."""
expect.set_options(timeout=30_000)  # a machine may be busy with other tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictures")
    (found / "1.jpg").write_bytes(picture(1, 300))
    (found / "junk.jpg").write_bytes(b"junk")
    return found


@pytest.fixture(scope="module")
def running(browser: Browser, small_model: str, folder: Path, garments: Taxonomy) -> Iterator[Endpoint]:
    models = f"garments={small_model},fused={make_fused(folder / 'models', garments)}"
    with endpoint(f"--model={models}", "--allow-anonymous", f"--image-prefixes={folder}") as started:
        yield started


@pytest.fixture(params=SIZES.values(), ids=list(SIZES))
def page(request: pytest.FixtureRequest, browser: Browser, running: Endpoint) -> Iterator[Page]:
    with watched_page(browser, request.param, sites=(running.url,), expected="422") as opened:
        opened.goto(running.url)
        expect(opened.locator("#model")).to_contain_text("category paths")
        yield opened


def keep(page: Page, name: str, tmp_path: Path) -> None:
    size = page.viewport_size
    assert size
    page.screenshot(path=Path(ARTIFACTS or tmp_path) / f"{name}-{size['width']}.png", full_page=True)


def test_a_picture_and_where_the_model_looked(page: Page, folder: Path, tmp_path: Path) -> None:
    keep(page, "empty", tmp_path)
    page.locator("#file").set_input_files(folder / "1.jpg")
    expect(page.locator("#result")).to_be_visible()
    path = page.locator("#path").inner_text().split(" > ")
    levels = page.locator("#levels button")
    expect(levels).to_have_count(len(path))
    assert [text.split("\n")[0] for text in levels.all_inner_texts()] == path
    expect(page.locator("#alternatives li")).to_have_count(4)
    expect(page.locator("#levels [aria-pressed=true]")).to_contain_text(path[-1])
    overlay = page.locator("#overlay")
    expect(overlay).to_have_attribute("alt", f"where the model looked for {path[-1]}")
    levels.first.click()
    expect(page.locator("#caption")).to_contain_text(path[0])
    expect(overlay).to_have_attribute("alt", f"where the model looked for {path[0]}")
    assert overlay.evaluate("image => image.naturalWidth") == 224
    keep(page, "answer", tmp_path)


def choose_by_enter(page: Page, file: Path) -> None:
    """Choose a file from the focused field; on a busy machine Chromium may miss a key, or open its chooser late."""
    opened: list[FileChooser] = []
    page.on("filechooser", lambda chooser: opened.append(chooser))
    for _ in range(4):
        page.keyboard.press("Enter")
        for _ in range(50):
            if opened:
                opened[0].set_files(file)
                return
            page.wait_for_timeout(200)
    pytest.fail("no file chooser opened")


def test_a_part_of_the_taxonomy_by_keyboard_alone(page: Page, folder: Path, tmp_path: Path) -> None:
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    choose_by_enter(page, folder / "1.jpg")
    expect(page.locator("#result")).to_be_visible()
    branch = page.locator("#tree > li").last
    name = branch.locator("button[aria-pressed]").first.inner_text()
    for _ in range(30):
        if page.evaluate("document.activeElement.textContent") == name:
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#within")).to_have_text(name)
    expect(page.locator("#path")).to_contain_text(name)
    assert page.locator("#path").inner_text().startswith(name)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # opens the branch
    expect(branch.locator("ul button[aria-pressed]").first).to_be_visible()
    keep(page, "narrowed", tmp_path)


def test_an_object_key_and_what_cannot_be_had(page: Page, folder: Path) -> None:
    page.locator("#uri").fill(str(folder / "1.jpg"))
    page.locator("#uri").press("Enter")
    expect(page.locator("#result")).to_be_visible()
    shown = page.locator("#picture").get_attribute("src")
    assert shown
    assert shown.startswith("data:image/jpeg;base64,")
    page.locator("#uri").fill("/etc/passwd")
    page.get_by_role("button", name="Categorize").click()
    expect(page.locator("#status")).to_contain_text("not below a folder")
    expect(page.locator("#result")).to_be_hidden()
    page.locator("#file").set_input_files(folder / "junk.jpg")
    expect(page.locator("#status")).to_have_class("wrong")
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")


def test_a_title_and_a_description_with_and_without_a_picture(
    page: Page, running: Endpoint, folder: Path, tmp_path: Path
) -> None:
    title, description = page.locator("#title"), page.locator("#description")
    expect(title).to_be_hidden()
    page.locator("#name").select_option("fused")
    expect(page.locator("#model")).to_contain_text("picture, title, description")
    title.fill("Blue saree")
    description.fill("A red shirt.")
    page.get_by_role("button", name="Ask with these texts").click()
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#canvas")).to_be_hidden()
    alone = page.locator("#status").inner_text()
    page.locator("#file").set_input_files(folder / "1.jpg")
    expect(page.locator("#canvas")).to_be_visible()
    expect(page.locator("#status")).not_to_have_text(alone)
    answer = requests.post(
        f"{running.url}/v1/models/fused/categorize",
        files={"file": (folder / "1.jpg").read_bytes()},
        data={"title": "Blue saree", "description": "A red shirt."},
        timeout=30,
    )
    (result,) = answer.json()["results"]
    expect(page.locator("#status")).to_contain_text(f"{100 * result['probability']:.1f}%")
    keep(page, "texts", tmp_path)
    page.get_by_role("button", name="Ask without the picture").click()
    expect(page.locator("#canvas")).to_be_hidden()
    expect(page.locator("#status")).to_have_text(alone)
    expect(page.locator("#alone")).to_be_hidden()
    page.locator("#name").select_option("garments")
    expect(title).to_be_hidden()


def test_the_documentation_needs_nothing_from_elsewhere(page: Page, running: Endpoint) -> None:
    page.goto(f"{running.url}/docs")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    expect(page.get_by_text("/v1/categorize", exact=True).first).to_be_visible()


def test_a_password_in_the_address(browser: Browser, running: Endpoint, folder: Path) -> None:
    named = running.url.replace("://", "://me:secret@")
    with watched_page(browser, SIZES["desk"], sites=(running.url, named)) as page:
        page.goto(named)
        expect(page.locator("#model")).to_contain_text("category paths")
