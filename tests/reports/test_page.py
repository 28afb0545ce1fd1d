"""The page of results: against SciPy's paired test, the records and files it is made from, and in a real browser."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from lcmat import records
from lcmat.commands import report
from lcmat.errors import UserError
from lcmat.reports.page import Beside, write_page
from lcmat.reports.page.build import hours
from lcmat.reports.page.subsets import Sets, tiles
from tests.harness import ROOT, call, cli

FRACTIONS, SEEDS = (0.01, 0.1), range(5)
MEANS = {"Uniform": 70.0, "Good": 74.0, "Bad": 66.0, "Same": 70.1}
TRAINING = {"epochs": 1, "optimizer": "SGD", "lr": 0.1, "scheduler": "constant", "batch": 2, "augmentation": "none"}
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 5)).astype(np.uint8)
VOID = {"meta", "link", "input", "img", "br"}
# A method may be the name of a file of indices, which a user chooses.
AWKWARD = '</script><b onclick="x">&'


def accuracy(method: str, fraction: float, seed: int) -> float:
    """Return an accuracy in which a seed's luck is larger than what methods differ by."""
    noise = np.random.default_rng([list(MEANS).index(method), round(100 * fraction), seed]).normal()
    return float(MEANS[method] + 5 * seed + noise)


def save(folder: Path, method: str, fraction: float, seed: int, **more: object) -> Path:
    """Write a record, with what `more` sets in its configuration or names beside it by a suffix; return its path."""
    config = {
        "dataset": "digits", "dataset_fingerprint": "f" * 16, "selection": method, "fraction": fraction, "seed": seed,
        "options": {}, "test_model": "MLP", "training": TRAINING, "precision": "float32",
        **{name: value for name, value in more.items() if not str(value).startswith(".")},
    }  # fmt: skip
    value = accuracy(method, fraction, seed) if method in MEANS else 50.0
    path = records.record_path(folder, config, "MLP")
    files = {name: path.with_suffix(suffix).name for name, suffix in more.items() if name not in config}
    records.write_record(path, {
        "selection_model": "MLP", **{k: config[k] for k in ("dataset", "test_model", "selection", "fraction", "seed")},
        "test_accuracy": value, "best_test_accuracy": 99.0, "test_interval": 0, "subset_size": 4,
        "seconds": {"pretrain": 1.0, "signals": 2.0, "select": seed + 0.5, "train": 10.0}, "config": config,
        "environment": {"peak_memory": (1 + seed) << 29}, **files,
    })  # fmt: skip
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of records, two of them with what was chosen or learned, and a grid's table and figure."""
    folder = tmp_path_factory.mktemp("page") / "result"
    for method in MEANS:
        for fraction in FRACTIONS:
            for seed in SEEDS:
                path = save(folder, method, fraction, seed, indices=".npz")
                first = 4 * list(MEANS).index(method) + seed
                chosen = {"indices": np.array([first, first + 9, 39, first + 1]), "classes": np.array([0, 0, 1, 1])}
                more = {"rank": np.array([0, 1, 0, 1]), "weights": np.array([1, 2, 1, 1.5]), "costs": np.full(4, 7.0)}
                np.savez(path.with_suffix(".npz"), class_sizes=np.array([20, 20]), balanced=True, **chosen, **more)
    path = save(folder, "DM", 0.1, 0, synthetic=".pt")
    torch.save({"images": torch.rand(4, 1, 6, 5), "labels": torch.tensor([0, 0, 1, 1])}, path.with_suffix(".pt"))
    path = save(folder, AWKWARD, 0.1, 0, indices=".npz")
    np.savez(path.with_suffix(".npz"), **chosen, **more)
    save(folder / "more", "Uniform", 0.1, 0)
    for name in ("figures", "tables"):
        (folder / name).mkdir()
    for name in ("mine.png", "mine-difference.png"):
        Image.fromarray(np.full((300, 2000), 200, np.uint8)).save(folder / "figures" / name)
    (folder / "tables" / "mine.md").write_text("# My grid\n\n## digits\n\nTrained long.\n\n| a |\n|---|\n| 1 |\n")
    write_page(folder, Beside({"f" * 16: PIXELS}, configs(folder)))
    return folder


def configs(folder: Path) -> Path:
    """Return a folder of grids' files."""
    made = folder.parent / "configs"
    made.mkdir(exist_ok=True)
    (made / "mine.yaml").write_text("title: My grid\nruns: {epochs: 7}\n")
    return made


class Element(NamedTuple):
    """A start tag of the page and all the text in it."""

    tag: str
    attributes: dict[str, str | None]
    text: list[str]


class Parsed(HTMLParser):
    """All elements, in their order; an end tag that does not fit fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[Element] = []
        self.open: list[Element] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        self.found.append(Element(tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(self.found[-1])

    def handle_endtag(self, tag: str) -> None:
        """Close the last one, which must be of this tag."""
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        """Belong to everything that is open."""
        for element in self.open:
            element.text.append(data)


@pytest.fixture(scope="module")
def page(folder: Path) -> list[Element]:
    """Return the elements of the page."""
    return Parsed((folder / "report.html").read_text(encoding="utf-8")).found


def data_of(page: list[Element]) -> dict:
    """Return what the page's script reads."""
    return json.loads("".join(next(e for e in page if e.attributes.get("id") == "data").text))


def rows(page: list[Element]) -> list[list[Element]]:
    """Return the cells of each row of the large table, the method's first."""
    start = next(i for i, e in enumerate(page) if e.attributes.get("id") == "table")
    end = next(i for i, e in enumerate(page) if e.attributes.get("id") == "grids")
    here, found = page[start:end], []
    for element in here:
        if element.tag == "tr":
            found.append([])
        elif element.tag in ("th", "td"):
            found[-1].append(element)
    return found[1:]


def text(element: Element) -> str:
    return " ".join("".join(element.text).split())


def test_page_refers_to_nothing_outside(page: list[Element], folder: Path) -> None:
    """No address of a network; what is shown is inside, and links lead to files that lie beside it."""
    assert not re.search(r"https?:|//[a-z]|@import", (folder / "report.html").read_text().replace("data:image", ""))
    for element in page:
        assert element.tag not in ("iframe", "object", "embed")
        assert element.attributes.get("src", "data:").startswith("data:")
        link = element.attributes.get("href") or "#"
        if not link.startswith(("#", "data:")):
            assert (folder / unquote(link)).is_file()
    targets = {e.attributes["href"][1:] for e in page if (e.attributes.get("href") or "").startswith("#")}
    assert targets <= {e.attributes.get("id") for e in page}


def test_every_cell_is_a_row_that_links_all_its_records(page: list[Element], folder: Path) -> None:
    """And each record of the folder is linked once."""
    found = rows(page)
    assert len(found) == len(MEANS) * len(FRACTIONS) + 3
    known = {(text(row[0]), text(row[3]), text(row[11])) for row in found}
    assert {(m, f"{100 * f:g}%", "") for m in MEANS for f in FRACTIONS} <= known
    assert {(AWKWARD, "10%", ""), ("DM", "10%", ""), ("Uniform", "10%", "more")} <= known
    start = next(i for i, e in enumerate(page) if e.attributes.get("id") == "table")
    links = [unquote(e.attributes["href"]) for e in page[start:] if "record of seed" in e.attributes.get("title", "")]
    assert sorted(links) == sorted(str(p.relative_to(folder)) for p in folder.rglob("fraction*.json"))


def test_numbers_are_those_of_scipy(page: list[Element]) -> None:
    """Mean and difference with 95% intervals, medians of seconds, and the most memory."""
    for row in rows(page):
        method, fraction = text(row[0]), float(text(row[3])[:-1]) / 100
        if method not in MEANS or text(row[11]):
            continue
        values, others = ([accuracy(name, fraction, s) for s in SEEDS] for name in (method, "Uniform"))
        interval = scipy.stats.ttest_1samp(values, 0).confidence_interval()
        half = (interval.high - interval.low) / 2
        assert text(row[4]) == "5"
        assert text(row[5]) == f"{np.mean(values):.2f} ± {half:.2f}"
        assert (text(row[8]), text(row[9]), text(row[10])) == ("5.5", "10.0", "2.50")
        if method == "Uniform":
            assert text(row[6]) == ""
            continue
        test = scipy.stats.ttest_rel(values, others).confidence_interval()
        sign = "▲ " if test.low > 0 else "▼ " if test.high < 0 else ""
        middle, half = (test.high + test.low) / 2, (test.high - test.low) / 2
        assert text(row[6]) == f"{sign}{middle:+.2f} ± {half:.2f}"


def test_start_page_says_what_can_be_told_from_uniform(page: list[Element]) -> None:
    """As many as SciPy's test says, by name and fraction."""
    tests = {
        (method, f): scipy.stats.ttest_rel(*([accuracy(m, f, s) for s in SEEDS] for m in (method, "Uniform")))
        for method in ("Good", "Bad", "Same")
        for f in FRACTIONS
    }
    above = [key for key, test in tests.items() if test.pvalue < 0.05 and test.statistic > 0]
    below = [key for key, test in tests.items() if test.pvalue < 0.05 and test.statistic < 0]
    assert above
    assert below
    said = text(next(e for e in page if e.attributes.get("id") == "found"))
    assert f"in 6 cells: {len(above)} above, {len(below)} below, {6 - len(above) - len(below)} not separable" in said
    assert "43 runs in 2 settings" in said
    for method in ("Good", "Bad", "Same"):
        counts = [sum(key[0] == method for key in some) for some in (above, below)]
        assert f"{method} {counts[0]} {counts[1]} {2 - sum(counts)}" in said
    for method, fraction in above:
        lines = [text(e) for e in page if e.attributes.get("data-label") == "Above"]
        value = np.mean([accuracy(method, fraction, s) - accuracy("Uniform", fraction, s) for s in SEEDS])
        assert any(line.startswith(f"▲ {method} {value:+.1f} ± ") for line in lines)


def test_sets_are_those_of_the_files(page: list[Element], folder: Path) -> None:
    """Chosen samples in their order with their classes; images of data that are at hand, and learned ones, by pixel."""
    data = data_of(page)
    assert len(data["entries"]) == len(MEANS) * len(FRACTIONS) * len(SEEDS) + 2
    for setting, method, _, _, path, place, sheet, fingerprint in data["entries"]:
        assert data["settings"][setting] == "digits, MLP"
        assert fingerprint == "f" * 16
        if method == "DM":
            values = torch.load((folder / path).with_suffix(".pt"), weights_only=True)
            assert data["sheets"][sheet]["l"] == values["labels"].tolist()
            expected = (values["images"] * 255).round().numpy()
            np.testing.assert_array_equal(images(data["sheets"][sheet], 4), expected[:, 0])
            continue
        with np.load((folder / path).with_suffix(".npz")) as arrays:
            assert data["lists"][place]["i"] == arrays["indices"].tolist()
            labels = [label for label, count in data["lists"][place]["c"] for _ in range(count)]
            assert labels == arrays["classes"].tolist()
            assert data["lists"][place]["w"] == [1, 2, 1, 1.5]
            assert "k" not in data["lists"][place]  # costs that never change say nothing
    assert len(data["lists"]) == len({json.dumps(one) for one in data["lists"]})
    np.testing.assert_array_equal(images(data["tiles"]["f" * 16], len(PIXELS)), PIXELS[:, 0])


def test_a_large_dataset_has_the_images_that_subsets_chose_first() -> None:
    """In each class, as many as the page may hold, by index; those of other data stay out."""
    entries = [[0, "A", 0.1, 0, "a", place, None, key] for place, key in enumerate("ffg")]
    lists = [([30, 2, 7, 9], [[0, 3], [1, 1]]), ([8, 5, 39], [[0, 3]]), ([0], [[0, 1]])]
    sets = Sets(entries, [{"i": indices, "c": classes} for indices, classes in lists])
    (found,) = tiles({"f": PIXELS, "h": PIXELS}, sets, most=5).values()
    assert found["i"] == [2, 5, 8, 9, 30]
    np.testing.assert_array_equal(images(found, 5), PIXELS[found["i"], 0])
    assert "i" not in tiles({"f": PIXELS}, sets, most=40)["f"]


def test_the_hours_count_a_shared_network_once() -> None:
    seconds = {"pretrain": 3600.0, "signals": 7200.0, "select": 1800.0, "train": 1800.0}
    several = [{"dataset": "digits", "seed": 0, "path": path, "seconds": seconds} for path in "ab"]
    other = {"dataset": "digits", "seed": 1, "path": "c", "seconds": {"pretrain": 3600.0}}
    assert hours([*several, other]) == 3 + 2 + 1


def images(sheet: dict, count: int) -> np.ndarray:
    """Return the images of a sheet as the page's script finds them, (count, h, w)."""
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(sheet["u"].partition(",")[2]))))
    places = [(n // sheet["x"] * sheet["h"], n % sheet["x"] * sheet["w"]) for n in range(count)]
    return np.array([pixels[top : top + sheet["h"], left : left + sheet["w"]] for top, left in places])


def test_a_grid_has_its_figure_caption_and_settings(page: list[Element]) -> None:
    """The figure no wider than a page."""
    (article,) = (e for e in page if e.tag == "article")
    assert all(word in text(article) for word in ("My grid", "Trained long.", "runs: {epochs: 7}", "minus Uniform's"))
    shown, other = (e.attributes for e in page if e.tag == "img" and e.attributes.get("src"))
    assert "grey: not separable" in shown["alt"] + other["alt"]
    with Image.open(io.BytesIO(base64.b64decode(shown["src"].partition(",")[2]))) as image:
        assert image.size == (1500, 225) == (int(shown["width"]), int(shown["height"]))


def test_settings_of_one_title_are_told_apart(tmp_path: Path) -> None:
    """By what differs, such as the precision."""
    for precision in ("float32", "bfloat16"):
        save(tmp_path, "Uniform", 0.1, 0, precision=precision)
    found = Parsed(write_page(tmp_path)[0].read_text(encoding="utf-8")).found
    assert sorted(data_of(found)["settings"]) == ["digits, MLP, bfloat16", "digits, MLP, float32"]
    assert sorted(text(row[11]) for row in rows(found)) == ["bfloat16", "float32"]
    save(tmp_path, "Uniform", 0.1, 0, test_interval=3)
    found = Parsed(write_page(tmp_path)[0].read_text(encoding="utf-8")).found
    assert sorted(data_of(found)["settings"]) == [
        "digits, MLP, bfloat16", "digits, MLP, float32", "digits, MLP, float32, test interval 3",
    ]  # fmt: skip


def test_a_damaged_file_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    """A record that is cut off, and a set that is no archive."""
    for seed in range(2):
        save(tmp_path, "Uniform", 0.1, seed, indices=".npz").with_suffix(".npz").write_text("no archive")
    damaged = save(tmp_path, "Uniform", 0.1, 2)
    damaged.write_text(damaged.read_text()[:-40])
    path, unreadable = write_page(tmp_path)
    assert len(unreadable) == 3
    assert all(damaged.stem[:10] in line for line in unreadable)
    found = Parsed(path.read_text(encoding="utf-8")).found
    assert [text(row[4]) for row in rows(found)] == ["2"]
    assert data_of(found)["entries"] == []


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match="no records below"):
        write_page(tmp_path)
    assert call(tmp_path / "none", command=report.main) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_command_shows_what_runs_chose_of_digits(tmp_path: Path) -> None:
    """Without their folder: the images come with scikit-learn."""
    cli(tmp_path)("--selection", "Uniform")
    assert call(tmp_path / "result", command=report.main) == 0
    data = data_of(Parsed((tmp_path / "result" / "report.html").read_text(encoding="utf-8")).found)
    assert list(data["tiles"]) == [data["entries"][0][7]]


# ---- in a browser, slowly --------------------------------------------------------------------------------------------

Browser = object
PARTS = ("found", "cells", "grids", "picks", "compare")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return Debian's Chromium, or Playwright's own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    own = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_api.sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium to be started: {str(error).splitlines()[0]}")
        yield made
        made.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_page_works_in_a_browser(browser: Browser, folder: Path, scheme: str, width: int) -> None:
    """It sorts, filters, opens images, compares, by keyboard, at any width; and says no error."""
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    errors: list[str] = []
    view.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    view.on("pageerror", lambda error: errors.append(str(error)))
    view.goto((folder / "report.html").resolve().as_uri())
    for part in PARTS:
        view.click(f"nav a[href='#{part}']")
        view.locator(f"section#{part}").wait_for()
        assert view.locator("section:visible").count() == 1
        assert view.evaluate("document.documentElement.scrollWidth") <= width
    light = view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    sorts_and_filters(view)
    shows_picks(view)
    view.click("nav a[href='#grids']")
    view.focus(".enlarge")
    view.keyboard.press("Enter")
    assert view.locator("dialog img").is_visible()
    view.keyboard.press("Escape")
    assert not view.locator("dialog img").is_visible()
    assert errors == []
    view.close()


def sorts_and_filters(view: object) -> None:
    """By final accuracy, downwards and upwards, from the keyboard; and by method and side."""
    view.click("nav a[href='#cells']")
    for order in ("descending", "ascending"):
        view.locator("#table thead button", has_text="Final").focus()
        view.keyboard.press("Enter")
        assert view.locator("th[aria-sort]").get_attribute("aria-sort") == order
        cells = view.locator("#table tbody td:nth-child(6)")
        values = cells.evaluate_all("some => some.map((cell) => Number(cell.dataset.v))")
        assert len(values) == len(MEANS) * len(FRACTIONS) + 3
        assert values == sorted(values, reverse=order == "descending")
    view.fill("input[name=method]", "goo")
    assert view.locator("#table tbody tr:visible th").all_inner_texts() == ["Good", "Good"]
    view.click("button[type=reset]")
    view.select_option("select[name=side]", "-1")
    assert set(view.locator("#table tbody tr:visible th").all_inner_texts()) == {"Bad"}
    view.click("nav a[href='#found']")
    view.locator("#found a[data-fraction='1%']").first.click()
    view.locator("#table").wait_for()
    assert view.locator("#table tbody tr:visible").count() == len(MEANS)


def shows_picks(view: object) -> None:
    """From a cell to its picks in one click; along them by arrow keys; and of two subsets what only one has."""
    view.locator("#table tbody tr:visible", has=view.locator("th", has_text="Good")).locator(
        "a", has_text="see"
    ).click()
    view.locator("#picks").wait_for()
    assert view.locator("#pick-methods button[aria-pressed=true]").inner_text() == "Good"
    tiles = view.locator("#pick-shown .tile")
    titles = tiles.evaluate_all("some => some.map((tile) => tile.title)")
    assert titles[:2] == ["class 0, rank 0, index 4, weight 1", "class 0, rank 1, index 13, weight 2"]
    assert "data:image/png" in tiles.first.evaluate("(tile) => getComputedStyle(tile).backgroundImage")
    tiles.first.focus()
    command = view.locator("#pick-shown code").first.inner_text()
    assert re.fullmatch(r"python -m lcmat export result/digits-MLP/Good/fraction0\.01\S+\.json --to FOLDER", command)
    view.keyboard.press("ArrowRight")
    assert view.locator("#pick-shown .facts").inner_text() == titles[1]
    view.locator("#pick-form select[name=fraction]").select_option("0.1")
    view.locator("#pick-methods button", has_text="DM").click()
    assert tiles.first.get_attribute("title") == "class 0, rank 0, learned image 0"
    view.click("nav a[href='#compare']")
    view.select_option("select[name=methodA]", "Uniform")
    view.select_option("select[name=methodB]", "Good")
    headings = view.locator("#compare-shown h3").all_inner_texts()
    ofs = [{0, 9, 39, 1}, {4, 13, 39, 5}]
    expected = [len(ofs[0] - ofs[1]), len(ofs[1] - ofs[0]), len(ofs[0] & ofs[1])]
    assert [int(line.rpartition(" ")[2]) for line in headings] == expected


@pytest.mark.slow
def test_page_of_the_committed_results_is_small_and_whole(browser: Browser, tmp_path: Path) -> None:
    """Below 10 MB, every record linked, and no error in a browser."""
    shutil.copytree(ROOT / "result", tmp_path / "result")
    assert call(tmp_path / "result", command=report.main) == 0
    path = tmp_path / "result" / "report.html"
    assert path.stat().st_size < 10_000_000
    linked = set(re.findall(r'href="([^"]+)" title="record of seed', path.read_text(encoding="utf-8")))
    names = [name for kind in ("fraction", "continual") for name in path.parent.rglob(f"{kind}*.json")]
    there = {str(name.relative_to(path.parent)) for name in names}
    assert {unquote(link) for link in linked} == there
    view, errors = browser.new_page(), []
    view.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    view.on("pageerror", lambda error: errors.append(str(error)))
    view.goto(path.as_uri())
    for part in PARTS:
        view.click(f"nav a[href='#{part}']")
    assert view.locator("#pick-shown .tile").count() > 0
    assert errors == []
