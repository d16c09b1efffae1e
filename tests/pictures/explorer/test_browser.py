"""The explorer and the report in a real browser: every control changes what it should, and nothing else is asked."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.explorers import explorer
from tests.cli.running import TINY_TRAINING, run
from tests.networks import save_small_networks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium on the PATH", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}


class Watched:
    """A page in the browser, and what it should not do: ask others, complain."""

    def __init__(self, page: Any, own: str) -> None:
        self.page, self.complaints, self.asked = page, [], []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._watch(request.url, own))

    def _watch(self, address: str, own: str) -> None:
        if not address.startswith((own, "data:", "blob:")):
            self.asked.append(address)

    def assert_quiet(self) -> None:
        assert self.complaints == []
        assert self.asked == []

    def shown(self, **expected: Any) -> np.ndarray:
        """The picture, once it is that of a view with these parts."""
        for _ in range(200):
            drawn = json.loads(self.page.get_attribute("body", "data-drawn") or "{}")
            if drawn and all(drawn[key] == value for key, value in expected.items()):
                return self.pixels("#image")
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never drawn: {expected}, but {drawn}; {self.page.inner_text('#status')}")

    def pixels(self, selector: str) -> np.ndarray:
        address = self.page.get_attribute(selector, "src")
        data = self.page.context.request.get(address).body() if address.startswith("http") else _decoded(address)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)


def _decoded(address: str) -> bytes:
    import base64

    return base64.b64decode(address.split(",", 1)[1])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("explored")
    return [save_small_networks(folder / f"{name}.safetensors", seed) for seed, name in enumerate(("first", "second"))]


@pytest.fixture(scope="module")
def address(networks: list[Path]) -> Iterator[str]:
    with explorer(*networks, "--distance", "mse") as (_, lines):
        yield lines[-1]


def opened(browser: Any, address: str, size: str = "desktop", scheme: str = "light") -> Watched:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    watched = Watched(context.new_page(), address.split("?")[0])
    watched.page.goto(address)
    watched.page.wait_for_selector("body[data-drawn]")
    return watched


@pytest.fixture
def view(browser: Any, address: str) -> Iterator[Watched]:
    watched = opened(browser, address)
    yield watched
    watched.assert_quiet()
    watched.page.context.close()


def first_code(view: Watched) -> int:
    return int(view.page.locator("#codes li").first.get_attribute("id").removeprefix("code-"))


def test_a_slider_moves_its_code_and_undo_takes_it_back(view: Watched) -> None:
    before, code = view.shown(seed=0, values={}), first_code(view)
    view.page.locator("#codes input[type=range]").first.fill("2.5")
    moved = view.shown(values={str(code): 2.5})
    assert not np.array_equal(before, moved)
    assert view.page.locator(f"#code-{code} input[type=number]").input_value() == "2.5"
    view.page.click("#undo")
    assert np.array_equal(view.shown(values={}), before)
    view.page.click("#redo")
    assert np.array_equal(view.shown(values={str(code): 2.5}), moved)
    view.page.click(f"#code-{code} button")
    assert np.array_equal(view.shown(values={}), before)


def test_keys_move_a_code_and_undo_it(view: Watched) -> None:
    slider, code = view.page.locator("#codes input[type=range]").first, first_code(view)
    slider.focus()
    slider.press("End")
    view.shown(values={str(code): 4})
    assert view.page.locator(f"#code-{code}").get_attribute("aria-current") == "true"
    slider.press("Control+z")
    view.shown(values={})


def test_seed_truncation_and_reset_change_the_picture(view: Watched) -> None:
    first, code = view.shown(seed=0), first_code(view)
    view.page.fill("#seed", "5")
    view.page.press("#seed", "Enter")
    other = view.shown(seed=5)
    view.page.locator("#truncation").fill("0.5")
    calmer = view.shown(seed=5, truncation=0.5)
    view.page.locator(f"#code-{code} input[type=number]").fill("3")
    view.page.locator(f"#code-{code} input[type=number]").press("Enter")
    moved = view.shown(seed=5, truncation=0.5, values={str(code): 3})
    view.page.click("#reset")
    assert np.array_equal(view.shown(seed=5, truncation=0.5, values={}), calmer)
    pictures = [first, other, calmer, moved]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    view.page.click("#another")
    view.page.wait_for_timeout(300)
    assert json.loads(view.page.get_attribute("body", "data-drawn"))["seed"] != 5


def test_sights_show_mask_and_change_of_the_chosen_code(view: Watched) -> None:
    image = view.shown(sight="image")
    view.page.check("input[value=mask]")
    mask = view.shown(sight="mask")
    view.page.check("input[value=change]")
    change = view.shown(sight="change", code=first_code(view))
    assert "no change" in view.page.inner_text("#legend")
    view.page.locator("#codes li").last.click(position={"x": 5, "y": 5})
    last = int(view.page.locator("#codes li").last.get_attribute("id").removeprefix("code-"))
    of_another = view.shown(sight="change", code=last)
    assert len({picture.tobytes() for picture in (image, mask, change, of_another)}) == 4


def test_a_pinned_picture_stays_beside_the_other_and_they_swap(view: Watched) -> None:
    before = view.shown(seed=0)
    view.page.click("#pin")
    view.page.locator("#codes input[type=range]").first.fill("-3")
    code = first_code(view)
    moved = view.shown(values={str(code): -3})
    assert np.array_equal(view.pixels("#pinned-image"), before)
    view.page.click("#swap")
    assert np.array_equal(view.shown(values={}), before)
    assert np.array_equal(view.pixels("#pinned-image"), moved)
    view.page.click("#pin")
    assert view.page.is_hidden("#pinned")


def test_another_network_can_be_chosen(view: Watched, networks: list[Path]) -> None:
    first = view.shown(network=0)
    view.page.select_option("#network", "1")
    assert not np.array_equal(view.shown(network=1), first)
    assert view.page.inner_text("#title") == str(networks[1])


def test_a_name_is_written_into_the_file_and_shown(view: Watched, networks: list[Path]) -> None:
    code = first_code(view)
    name = view.page.locator(f"#code-{code} .name")
    name.fill("<i>smile</i>")
    name.press("Enter")
    view.page.wait_for_timeout(300)
    assert run("label", networks[0]).output == f"code {code}: <i>smile</i>\n"
    assert view.page.locator(f"#code-{code} input[type=range]").get_attribute("aria-label") == "<i>smile</i>"
    name.fill("")
    name.press("Enter")
    view.page.wait_for_timeout(300)
    assert run("label", networks[0]).output == "no code has a name\n"


def test_what_is_saved_is_what_is_shown(view: Watched, tmp_path: Path) -> None:
    view.page.locator("#codes input[type=range]").first.fill("1.5")
    shown = view.shown(values={str(first_code(view)): 1.5})
    with view.page.expect_download() as download:
        view.page.click("#png")
    download.value.save_as(tmp_path / "saved.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "saved.png").convert("RGB"), dtype=int), shown)
    with view.page.expect_download() as download:
        view.page.click("#gif")
    download.value.save_as(tmp_path / "saved.gif")
    assert Image.open(tmp_path / "saved.gif").n_frames > 10
    view.page.click("#copy")
    view.page.wait_for_timeout(200)
    _, *words = shlex.split(view.page.evaluate("navigator.clipboard.readText()"))
    assert run(*words, "--outdir", tmp_path).exit_code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "seed0000.png").convert("RGB"), dtype=int), shown)


def test_every_control_has_a_name_and_the_keyboard_reaches_it(view: Watched) -> None:
    nameless = view.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, img")].filter((control) =>
            !control.hidden && !(control.labels?.length) && !control.getAttribute("aria-label")
            && !control.textContent.trim() && !control.alt).map((control) => control.outerHTML)"""
    )
    assert nameless == []
    reached = set()
    for _ in range(60):
        view.page.keyboard.press("Tab")
        reached.add(
            view.page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')")
        )
    assert {"pin", "png", "gif", "copy", "seed", "another", "truncation", "reset"} <= reached
    assert {f"code {code}" for code in range(3)} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_page_fits_the_screen_and_its_colours(browser: Any, address: str, size: str, scheme: str) -> None:
    watched = opened(browser, address, size, scheme)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    background = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    watched.assert_quiet()
    watched.page.context.close()


def test_several_windows_explore_at_once(browser: Any, address: str) -> None:
    windows = [opened(browser, address) for _ in range(3)]
    for seed, window in enumerate(windows, 1):
        window.page.fill("#seed", str(seed))
        window.page.press("#seed", "Enter")
    pictures = {window.shown(seed=seed).tobytes() for seed, window in enumerate(windows, 1)}
    assert len(pictures) == 3
    for window in windows:
        window.assert_quiet()
        window.page.context.close()


def test_a_wrong_network_gives_a_page_that_says_so(browser: Any, tmp_path: Path) -> None:
    with explorer(tmp_path / "absent.pt", "--order", "index") as (_, lines):
        page = browser.new_page()
        page.goto(lines[-1])
        assert "absent.pt" in page.inner_text("[role=alert]")
        page.close()


def test_a_report_shows_all_that_it_holds_and_asks_nobody(browser: Any, tmp_path: Path) -> None:
    assert run(*TINY_TRAINING, "--outdir", tmp_path, "--snap", "0.008").exit_code == 0
    (folder,) = tmp_path.iterdir()
    assert run("report", folder).exit_code == 0
    address = (folder / "report.html").as_uri()
    for size, (width, height) in SIZES.items():
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark")
        watched = Watched(context.new_page(), address)
        watched.page.goto(address)
        sizes = watched.page.evaluate("[...document.images].map((image) => image.naturalWidth)")
        assert len(sizes) > 3
        assert all(sizes), size
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
        watched.assert_quiet()
        context.close()
