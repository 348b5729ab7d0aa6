"""The report: its bytes, what it says, what it must not do, and how it behaves in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from contextlib import ExitStack
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from support.browser import chromium, faint, opened, unnamed
from support.outputs import write_folder

from defectrt.output import report
from defectrt.output.records import read_finished
from defectrt.output.report import write_report

DEFECT_TYPES = ["crack", "stain"]
HOSTILE = [
    "<script>window.hacked = 1</script>.png",
    "</script><img src=x onerror='window.hacked = 1'>.png",
    "a\"b'c&amp;<!--.png",
    "javascript:alert(1)/ü ✓ 漢字 \u2028.png",
    "50% #?.png",
]


def make_folder(out, images=6, dtype=np.uint8):
    """Images with a square that gets brighter; hostile names, and samples that were lost."""
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    samples = []
    for i in range(images):
        good = (rng.random((200, 300, 3)) * top * 0.1 + top * 0.3).astype(dtype)
        mask = np.zeros((200, 300), bool)
        mask[50 : 70 + i, 240:256] = True
        label = mask.copy()
        label[60:] = False
        image = good.copy()
        image[label] += np.array(top * 0.02 * (1 + i), dtype)
        record = {
            "source": HOSTILE[i] if i < len(HOSTILE) else f"{i}.png",
            "sample": 0,
            "seed": 2**63 + i,
            "defect": DEFECT_TYPES[i % 2],
            "visibility": 0.02 * (1 + i),
            "coverage": 1 / (2 + i),
            "seam": 0.01,
            "mask_area": int(mask.sum()),
            "refined_area": int(label.sum()),
            "changed_area": int(label.sum()),
        }
        samples.append((good, image, label, mask, record))
    dropped = [
        {"source": source, "sample": 1, "defect": "crack", "reason": "no defect <i>appeared</i>"}
        for source in (HOSTILE[0], "6.png")
    ]
    reason = "7.png: the file is empty"
    failed = [{"source": "7.png", "sample": 0, "defect": "stain", "reason": reason}]
    return write_folder(out, DEFECT_TYPES, samples, dropped, failed, category="plate <b>")


def add_lines(out, total):
    """Many more samples with the same files, as a manifest has them after a weekend."""
    path = out / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    with path.open("a") as file:
        for i in range(len(lines), total):
            line = lines[i % len(lines)] | {"source": f"{i:05}.png", "visibility": i / total}
            file.write(json.dumps(line) + "\n")


class Page(HTMLParser):
    """Tags, attributes and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        if self.tags[-1:] == ["script"] and data.strip():
            self.scripts.append(data)


def read(out):
    write_report(out)
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    return page, json.loads(page.scripts[0])


def decode(uri):
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_hostile_names_stay_text(tmp_path):
    page, data = read(make_folder(tmp_path / "out"))
    assert page.tags.count("script") == 2
    assert page.tags.count("img") == page.tags.count("b") == page.tags.count("i") == 0
    assert {s["source"] for s in data["samples"]} == {*HOSTILE, "5.png"}
    assert not {"<", ">", "&", "\u2028"} & set(page.scripts[0])
    assert data["category"] == "plate <b>"


def test_nothing_is_fetched(tmp_path):
    page, _ = read(make_folder(tmp_path / "out"))
    for name, value in page.attributes:
        assert name not in ("src", "srcset", "data", "poster", "onload", "onerror")
        assert name != "href" or value == "data:,"
    text = (tmp_path / "out" / "report.html").read_text()
    assert set(re.findall(r"\w+://[\w./]*", text)) == {"http://www.w3.org/2000/svg"}  # a name only
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|innerHTML|insertAdjacent|eval\(", text)
    policy = dict(page.attributes)["content"]
    assert "default-src 'none'" in text
    assert policy


def test_what_it_says(tmp_path):
    _, data = read(make_folder(tmp_path / "out"))
    assert data["counts"] == {
        "requested": 9,
        "placed": 8,
        "generated": 8,
        "kept": 6,
        "failed": 1,
    }
    assert [tuple(r.values())[:4] for r in data["reasons"]] == [
        ("not kept", "crack", "no defect <i>appeared</i>", 2),
        ("failed", "stain", "7.png: the file is empty", 1),
    ]
    assert data["reasons"][0]["samples"] == [[HOSTILE[0], 1], ["6.png", 1]]
    one = data["samples"][3]
    assert (one["defect_type"], one["number"], one["seed"]) == ("stain", 0, str(2**63 + 1))
    assert one["visibility"] == 0.04
    assert one["size"] == [300, 200]
    assert one["files"]["mask"] == "masks/stain/001.png"


def test_what_it_says_of_every_type(tmp_path):
    _, data = read(make_folder(tmp_path / "out"))
    crack, stain = data["types"]
    names = ("defect_type", "requested", "generated", "kept", "failed")
    assert [crack[k] for k in names] == ["crack", 5, 5, 3, 0]
    assert [stain[k] for k in names] == ["stain", 4, 3, 3, 1]
    assert crack["medians"]["visibility"] == pytest.approx(0.06)
    assert stain["medians"]["visibility"] == pytest.approx(0.08)


def test_a_type_that_came_to_nothing_is_told(tmp_path):
    out = make_folder(tmp_path / "out")
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text("".join(line for line in lines if '"crack"' in line))
    _, data = read(out)
    assert (data["types"][1]["kept"], set(data["types"][1]["medians"].values())) == (0, {None})


def test_the_images_are_the_samples(tmp_path):
    out = make_folder(tmp_path / "out")
    _, data = read(out)
    for sample in data["samples"]:
        x, y, w, h = sample["box"]
        assert x + w <= 300
        assert w == h == 96
        cut = slice(y, y + h), slice(x, x + w)
        shown = {name: decode(uri) for name, uri in sample["images"].items()}
        for name in ("good", "image"):
            exact = np.asarray(Image.open(out / sample["files"][name])).astype(int)[cut]
            assert np.abs(shown[name].mean(axis=2) - exact.mean(axis=2)).mean() < 8
        for name in ("mask", "label"):
            exact = np.asarray(Image.open(out / sample["files"][name]).convert("L"))[cut] > 0
            np.testing.assert_array_equal(shown[name][..., 0] > 0, exact)
        label = shown["label"][..., 0] > 0
        glow = shown["difference"].sum(axis=2)
        assert glow[~label].mean() < 12
        assert glow[label].mean() > 2000 * sample["visibility"]


def test_sixteen_bits_are_stretched_to_what_is_there(tmp_path):
    _, data = read(make_folder(tmp_path / "out", 1, np.uint16))
    good = decode(data["samples"][0]["images"]["good"])
    assert good.min() < 60
    assert good.max() > 195


def test_a_thin_line_does_not_get_lost_in_a_large_mask():
    mask = np.zeros((2400, 2400), bool)
    mask[:, 1201] = True
    shown = report._resized_mask(mask)
    assert shown.shape == (240, 240)
    assert shown[:, 120].min() > 0


def test_the_same_bytes_again(tmp_path):
    out = make_folder(tmp_path / "out")
    write_report(out)
    first = (out / "report.html").read_bytes()
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text("".join(reversed(lines)))
    write_report(out)
    assert (out / "report.html").read_bytes() == first


def test_only_some_of_many_images_are_embedded(tmp_path, monkeypatch):
    out = make_folder(tmp_path / "out")
    add_lines(out, 1000)
    monkeypatch.setattr(report, "MAX_EMBEDDED", 10)
    _, data = read(out)
    assert len(data["samples"]) == 1000
    assert [i for i, s in enumerate(data["samples"]) if "images" in s] == list(range(0, 1000, 100))
    assert data["embedded"] == 10


def test_figures_that_are_none_are_left_out(tmp_path):
    out = make_folder(tmp_path / "out", 1)
    line = json.loads((out / "manifest.jsonl").read_text())
    line |= {"visibility": float("nan"), "seam": "high", "coverage": None}
    (out / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    _, data = read(out)
    assert [data["samples"][0][k] for k in ("visibility", "seam", "coverage")] == [None] * 3


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def show(browser):
    """Opens a folder's report in a window of that size."""
    with ExitStack() as stack:

        def show(out, size=(1440, 900), **options):
            write_report(out)
            uri = (out / "report.html").as_uri()
            return Opened(stack.enter_context(opened(browser, uri, size, **options)))

        yield show


class Opened:
    """A report in the browser; `js` runs a script and returns what it gives."""

    def __init__(self, page):
        self.page = page

    def js(self, script, *given):
        return self.page.evaluate(f"(given) => (function () {{ {script} }})(...given)", given)

    def all(self, css):
        return self.page.query_selector_all(css)

    def texts(self, css):
        return [e.inner_text().strip() for e in self.all(css)]

    def set(self, name, value):
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        self.js(script + "e.dispatchEvent(new Event('input', {bubbles: true}))", name, value)

    def key(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)


@pytest.mark.slow
def test_it_opens_from_disk_and_runs_nothing_of_its_names(show, tmp_path):
    page = show(make_folder(tmp_path / "out"))
    assert page.texts(".counts dd") == ["9", "8", "8", "6", "1"]
    assert page.texts("#types tbody th") == ["crack", "stain"]
    assert page.texts("#types tbody tr:first-child td")[:6] == [
        "5",
        "5",
        "3",
        "0",
        "6.0 %",
        "25.0 %",
    ]
    assert len(page.all(".card")) == 6
    assert page.js("return window.hacked") is None
    assert page.page.title() == "plate <b>: 6 defects"
    shown = page.js("return [...document.querySelectorAll('.card .soft')].map(e => e.textContent)")
    assert shown == [HOSTILE[i] for i in (0, 2, 4, 1, 3)] + ["5.png"]
    assert page.js("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.js("return performance.getEntriesByType('resource').map(e => e.name)"
                   ".filter(n => !n.startsWith('data:'))") == []  # fmt: skip
    links = page.js("return [...document.querySelectorAll('.card a')].map(a => a.href)")
    base = (tmp_path / "out").as_uri()
    assert len(links) == 24
    assert all(link.startswith(base) for link in links)
    assert page.page.told == []


@pytest.mark.slow
def test_filters_and_order(show, tmp_path):
    page = show(make_folder(tmp_path / "out"))
    page.set("type", "stain")
    assert page.texts(".card h2 span") == ["stain 001", "stain 003", "stain 005"]
    assert page.texts("#count") == ["3 of 6 samples"]
    page.set("visibility", "8")
    assert page.texts(".card h2 span") == ["stain 003", "stain 005"]
    page.set("type", "")
    page.set("visibility", "0")
    page.set("coverage", "30")
    assert page.texts(".card h2 span") == ["crack 000", "stain 001"]
    page.set("coverage", "0")
    page.set("sort", "visibility")
    page.set("order", "-1")
    assert page.texts(".card h2 span")[:2] == ["stain 005", "crack 004"]
    page.set("name", "50% #")
    assert page.texts(".card h2 span") == ["crack 004"]
    page.set("name", "nonesuch")
    assert page.texts("#grid") == ["No sample fits."]


@pytest.mark.slow
def test_the_keyboard_does_it_all(show, tmp_path):
    page = show(make_folder(tmp_path / "out"))
    at = "return getComputedStyle(document.querySelector('.compare')).getPropertyValue('--at')"
    assert page.js(at) == "16%"
    page.js("document.getElementById('order').focus()")
    page.key("Tab")
    page.key("ArrowRight", "ArrowRight")
    assert page.js(at) == "20%"
    page.key("Tab")
    page.key("Enter")
    assert page.texts("dialog h2") == ["crack 000"]
    assert len(page.all("dialog img")) == 6
    page.js("document.querySelector('dialog button:not(:disabled)').focus()")
    page.key("ArrowRight")
    assert page.texts("dialog h2") == ["crack 002"]
    page.key("Escape")
    assert page.js("return document.getElementById('dialog').open") is False


@pytest.mark.slow
def test_a_phone_need_not_scroll_sideways(show, tmp_path):
    page = show(make_folder(tmp_path / "out"), (390, 844))
    assert page.js("return document.documentElement.scrollWidth") == 390
    page.js("document.querySelector('.card button').click()")
    over = "return [...document.querySelectorAll('dialog *')].filter("
    over += "e => e.getBoundingClientRect().right > document.body.clientWidth - 10).length"
    assert page.js(over) == 0


@pytest.mark.slow
def test_it_follows_light_and_dark(show, tmp_path):
    out, seen = make_folder(tmp_path / "out", 1), []
    for scheme in ("light", "dark"):
        page = show(out, color_scheme=scheme)
        seen.append(page.js("return getComputedStyle(document.body).backgroundColor"))
        assert faint(page.page) == []
        assert unnamed(page.page) == []
    assert seen == ["rgb(244, 245, 247)", "rgb(20, 23, 27)"]


@pytest.mark.slow
def test_on_paper_there_are_no_buttons_and_what_was_decided_stands_there(show, tmp_path):
    page = show(make_folder(tmp_path / "out", 2), color_scheme="dark")
    page.page.get_by_role("button", name="Refuse").first.click()
    page.page.emulate_media(media="print")
    assert not [b for b in page.all("button, select, input") if b.is_visible()]
    after = "getComputedStyle(document.querySelector('.card h2 span'), '::after').content"
    assert page.js(f"return {after}") == '" (refused)"'
    assert page.js("return getComputedStyle(document.body).color") == "rgb(27, 32, 38)"


@pytest.mark.slow
def test_what_lies_before_and_after_shows_under_the_mouse(show, tmp_path):
    page = show(make_folder(tmp_path / "out", 1))
    at = "return getComputedStyle(document.querySelector('.compare')).getPropertyValue('--at')"
    box = page.page.locator(".compare").bounding_box()
    page.page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20)
    assert page.js(at) == "75%"
    page.page.mouse.move(0, 0)
    assert page.js(at) == "16%"


@pytest.mark.slow
def test_ten_thousand_samples(show, tmp_path):
    out = make_folder(tmp_path / "out")
    add_lines(out, 10_000)
    page = show(out)
    assert page.texts("#note")[0].startswith("The pictures of 500 of 10,000 samples are in this")
    assert len(page.all(".card")) == 48
    assert len(page.all("*")) < 3000
    assert page.texts("#count") == ["500 of 10,000 samples"]
    assert page.texts("#page") == ["1 of 11"]
    page.set("show", "")
    assert page.texts("#page") == ["1 of 209"]
    page.js("document.getElementById('next').click()")
    assert page.texts("#page") == ["2 of 209"]
    page.set("sort", "visibility")
    page.set("order", "-1")
    assert page.texts(".card .soft")[0] == "09999.png"
    assert "not in this page" in page.texts(".card")[0]
    assert (out / "report.html").stat().st_size < 30_000_000
    assert page.page.told == []


@pytest.mark.slow
def test_samples_are_accepted_and_refused_and_the_decisions_saved(show, tmp_path):
    from defectrt.output.review import read_decisions

    page = show(make_folder(tmp_path / "out"))
    assert not page.page.locator("#decided").is_visible()
    page.page.get_by_role("button", name="Refuse").nth(1).click()
    page.page.get_by_role("button", name="Accept").nth(2).click()
    page.page.get_by_role("button", name="Enlarge").first.click()
    page.key("r")
    held = "new KeyboardEvent('keydown', {key: 'r', ctrlKey: true, bubbles: true})"  # reloads
    page.js(f"document.getElementById('dialog').dispatchEvent({held})")
    page.key("Escape")
    assert len(page.all(".card.refused")) == 2
    assert len(page.all(".card.accepted")) == 1
    assert page.texts("#refused")[0].startswith("1 accepted, 2 refused of 6.")
    page.page.get_by_label("Decided by").fill("Ada")
    with page.page.expect_download() as download:
        page.page.get_by_role("button", name="Save decisions").click()
    saved = tmp_path / "decisions.json"
    download.value.save_as(saved)
    by, decisions = read_decisions(saved)
    assert by == "Ada"
    images = [entry.image for entry in read_finished(tmp_path / "out").entries[:3]]
    assert {d.image: d.keep for d in decisions} == dict(
        zip(images, (False, False, True), strict=True)
    )
    for left in (2, 1, 0):
        page.page.get_by_role("button", name="Undo").click()
        assert len(page.all(".card.refused, .card.accepted")) == left
    assert not page.page.locator("#decided").is_visible()
