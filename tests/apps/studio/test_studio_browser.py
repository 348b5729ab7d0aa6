"""The studio in a real browser: from dropped pictures to a dataset, and every page by itself.

With DEFECTRT_SCREENSHOTS set to a folder, the pictures of the documentation are written there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.browser import chromium, faint, opened, sideways, unnamed
from support.outputs import records, save, tree
from support.studio import studio

from defectrt.apps.studio.runner import END, TASK
from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import read_manifest
from defectrt.synthesis.job import synthesize

pytestmark = pytest.mark.slow

SHEET = Path(__file__).parents[3] / "docs" / "images" / "learned.png"
PAGES = ("make", "learn", "review", "prove")
SECONDS = 180_000


def surface(seed, size=(240, 320)):
    """A good surface: streaks and grain."""
    rng = np.random.default_rng(seed)
    streaks = np.cumsum(rng.normal(0, 1, (size[0], 1)), axis=0)
    shade = np.linspace(0, 14, size[1])[None]
    grain = rng.normal(0, 4, size)
    return np.clip(140 + streaks - streaks.mean() + shade + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Good pictures, and a dataset made of them by the command line's own function."""
    folder = tmp_path_factory.mktemp("material")
    for i in range(3):
        save(folder / "goods" / f"part-{i + 1}.png", surface(i))
    fewest = min(map(int, read_manifest(BUNDLED_ENGINE).schedule.tables))
    synthesize(folder / "goods", folder / "made", quiet=True, steps=fewest, format="coco")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory, material):
    """A studio with the bundled engine, in whose list a learning and a proof are over."""
    folder = tmp_path_factory.mktemp("studio") / "studio"
    learned(folder)
    proved(folder)
    with studio(folder) as (_, link):
        yield folder, link


def learned(folder):
    """What `defectrt learn` leaves, in short."""
    for i in range(5):
        image, mask = surface(10 + i), np.zeros((240, 320), np.uint8)
        cv2.ellipse(mask, (160, 105), (9 + i, 6), 30 * i, 0, 360, 255, -1)
        image[mask > 0] = 40
        image = cv2.GaussianBlur(image, (3, 3), 0)
        save(folder / "examples" / "part" / "pit" / f"pit-{i + 1}.png", image)
        save(folder / "examples" / "part" / "pit" / f"pit-{i + 1}_mask.png", mask)
    run = folder / "engines" / "part-run"
    run.mkdir(parents=True)
    shutil.copy(SHEET, run / "sheet.png")
    lines = [
        {"step": s, "matching": 30 / (60 + s), "prior": 4 / (90 + s)} for s in range(10, 500, 10)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = [{"step": s, "loss": 36 / (70 + s)} for s in range(50, 500, 50)]
    (run / "held_out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    over(folder, "1" * 16, "learn", "part", folder / "engines" / "part")


def proved(folder):
    """What `defectrt prove` leaves, in short."""
    out = folder / "proofs" / "part"
    out.mkdir(parents=True)
    (out / "report.html").write_text("<h1>It cannot be told yet.</h1><script>alert(1)</script>")
    over(folder, "2" * 16, "prove", "part", out)


def over(folder, identity, kind, title, out):
    place = folder / "tasks" / identity
    place.mkdir(parents=True)
    words = {"kind": kind, "title": title, "arguments": [kind, title], "out": str(out), "began": 0}
    (place / TASK).write_text(json.dumps(words))
    (place / END).write_text('{"code": 0}')


def picture(page, name):
    """Keep a screenshot for the documentation, where one is wanted."""
    if folder := os.environ.get("DEFECTRT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"studio-{name}.png", full_page=True)


def told_nothing(page):
    """Nothing failed in the page, and it asked nobody but the studio."""
    assert [text for text in page.told if "status of 422" not in text] == []
    assert all(url.startswith(("http://127.0.0.1:", "blob:", "data:")) for url in page.asked)


def fault(page, card):
    """The error that a card shows."""
    return page.locator(f"[aria-label='{card}'] .error").inner_text()


def drop(page, paths):
    """Let files fall onto the page, as from a file manager."""
    transfer = page.evaluate_handle("() => new DataTransfer()")
    for path in paths:
        transfer.evaluate(
            "(t, [name, data]) => t.items.add(new File([Uint8Array.from(data)], name))",
            [path.name, list(path.read_bytes())],
        )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def stroke(page, *points):
    """Draw on the picture, by shares of the canvas."""
    box = page.locator("canvas").first.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=6)
    page.mouse.up()


def test_from_dropped_pictures_to_the_command_lines_dataset(browser, served, material, tmp_path):
    folder, link = served
    goods = sorted((material / "goods").iterdir())[:2]
    with opened(browser, link) as page:
        page.get_by_text("Drop pictures of good parts here").wait_for()
        assert "token" not in page.url
        drop(page, [Path(__file__)])
        page.get_by_text("not read; drop PNG").wait_for()
        drop(page, goods)
        page.get_by_text("2 pictures").wait_for()
        assert fault(page, "Good pictures") == ""
        page.get_by_label("scratch").check()
        page.get_by_role("button", name="Another seed").click()
        stroke(page, (0.42, 0.5), (0.5, 0.46), (0.56, 0.53))
        page.get_by_text("1 of 2 pictures have a mask").wait_for()
        page.get_by_text("As the dataset will have it,").wait_for(timeout=SECONDS)
        before = page.get_by_alt_text("Result").get_attribute("src")
        page.keyboard.press("f")
        flickered = page.get_by_alt_text("in the place of the result")
        assert flickered.get_attribute("src") != before
        page.keyboard.press("f")
        assert page.get_by_alt_text("Result").get_attribute("src") == before
        assert unnamed(page) == []
        picture(page, "make")

        page.keyboard.press("Control+z")
        page.get_by_text("Draw a mask on a picture").wait_for()
        assert page.get_by_role("button", name="Make the dataset").is_disabled()
        page.keyboard.press("Control+Shift+z")
        page.get_by_text("1 of 2 pictures have a mask").wait_for()
        page.get_by_label("Let it be placed").check()
        page.get_by_label("COCO").check()
        page.get_by_text("2 samples").wait_for()
        page.get_by_role("button", name="Make the dataset").click()
        page.get_by_role("link", name="Review it").wait_for(timeout=SECONDS)
        told_nothing(page)
    (pictures,) = (folder / "pictures").iterdir()
    made = folder / "datasets" / pictures.name
    options = {"defect": "scratch", "seed": 1, "format": "mvtec,coco"}
    synthesize(pictures, tmp_path / "same", quiet=True, **options)
    same, theirs = tree(tmp_path / "same"), tree(made)
    assert same.keys() == theirs.keys()
    names = [name for name in same if name.endswith((".png", ".jsonl")) or name.startswith("coco")]
    assert len(names) >= 10
    assert all(same[name] == theirs[name] for name in names)


def test_a_sample_is_refused_and_its_neighbour_gets_another_label(browser, served, material):
    _, link = served
    out = material / "made"
    images = [line["image"] for line in sorted(records(out), key=lambda line: line["image"])]
    with opened(browser, link) as page:
        page.goto(f"{link.partition('#')[0]}#review/{str(out).replace('/', '%2F')}")
        page.locator(".sample img[src]").nth(2).wait_for()
        page.locator(".sample").first.focus()
        page.keyboard.press("r")
        second = "document.activeElement === document.querySelectorAll('.sample')[1]"
        assert page.evaluate(f"() => {second}")
        page.keyboard.press("e")
        page.get_by_text("Mask within").wait_for()
        page.locator("dialog canvas").focus()
        page.keyboard.press("]")
        page.keyboard.press("Space")
        page.get_by_role("button", name="Use this label").click()
        page.get_by_text("1 to refuse, 1 to get another label").wait_for()
        picture(page, "review")
        page.get_by_role("button", name="Carry out").click()
        assert "Give a name" in fault(page, "Decisions")
        page.get_by_label("Decided by").fill("Ada")
        page.get_by_role("button", name="Carry out").click()
        page.get_by_text("Done: 1 refused, 0 brought back, 1 with another label").wait_for()
        kept = {line["image"]: line for line in records(out)}
        assert images[0] not in kept
        assert kept[images[1]]["label_by"] == "Ada"
        page.keyboard.press("Control+z")
        page.keyboard.press("Control+z")
        page.get_by_role("button", name="Carry out").click()
        page.get_by_text("Done: 0 refused, 1 brought back, 1 with another label").wait_for()
        assert unnamed(page) == []
        told_nothing(page)
    lines = records(out)
    assert len(lines) == 3
    assert not any("label_by" in line for line in lines)


def test_masks_curves_and_the_sheet_of_a_learning(browser, served, material):
    folder, link = served
    with opened(browser, link) as page:
        page.get_by_role("link", name="Learn").click()
        page.get_by_label("Its name").fill("part")
        page.keyboard.press("Tab")
        page.get_by_text("5 of 5 pictures marked").wait_for()
        page.get_by_role("button", name="Choose a folder").click()
        page.get_by_label("Path of the folder").fill(str(material / "none"))
        page.get_by_role("button", name="Use this folder").click()
        page.locator("dialog .error").get_by_text("no such folder").wait_for()
        page.get_by_label("Path of the folder").fill(str(material / "goods"))
        page.get_by_role("button", name="Use this folder").click()
        page.locator("dialog").wait_for(state="detached")
        assert page.get_by_role("button", name="Learn", exact=True).is_enabled()
        page.get_by_role("button", name="Clear").click()
        page.get_by_text("4 of 5 pictures marked").wait_for()
        page.get_by_role("button", name="Box").click()
        stroke(page, (0.482, 0.41), (0.518, 0.466))
        page.get_by_text("5 of 5 pictures marked").wait_for()
        chart = page.get_by_role("img", name="loss at step 490")
        assert "matching" in chart.get_attribute("aria-label")
        sheet = page.get_by_alt_text("Real defects beside made ones")
        sheet.scroll_into_view_if_needed()
        page.wait_for_function("(image) => image.naturalWidth", arg=sheet.element_handle())
        assert sheet.evaluate("(image) => image.naturalWidth") > 100
        assert unnamed(page) == []
        picture(page, "learn")
        told_nothing(page)
    mask = folder / "examples" / "part" / "pit" / "pit-1_mask.png"
    assert mask.is_file()


def test_a_path_that_was_typed_stays_when_the_list_of_folders_comes_late(browser, served):
    _, link = served
    with opened(browser, link) as page:
        page.get_by_role("link", name="Learn").click()
        held = []
        page.route("**/v1/studio/listing*", lambda route: held.append(route))
        with page.expect_request("**/v1/studio/listing*"):
            page.get_by_role("button", name="Choose a folder").click()
        path = page.get_by_label("Path of the folder")
        path.fill("typed")
        held[0].continue_()
        page.get_by_text("The folder above").wait_for()
        assert path.input_value() == "typed"
        told_nothing(page)


def test_the_certificate_runs_nothing(browser, served):
    _, link = served
    with opened(browser, link) as page:
        page.get_by_role("link", name="Prove").click()
        page.get_by_role("button", name="Prove", exact=True).click()
        assert "Choose real defects" in fault(page, "What to prove")
        page.get_by_role("button", name="Show the certificate").click()
        page.frame_locator("iframe").get_by_text("It cannot be told yet.").wait_for()
        assert unnamed(page) == []
        assert all("script" in text for text in page.told)  # that it was not run, and nothing else


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["desk", "phone"])
def test_every_page_is_readable_in_light_and_dark_and_on_a_phone(
    browser, served, material, scheme, size
):
    _, link = served
    with opened(browser, link, size, color_scheme=scheme) as page:
        for name in PAGES:
            page.goto(f"{link.partition('#')[0]}#{name}")
            page.locator(f"a[href='#{name}'][aria-current]").wait_for()
            page.locator(".page").wait_for()
            page.wait_for_timeout(200)
            assert faint(page) == [], name
            assert unnamed(page) == [], name
            assert sideways(page) == 0, name
        told_nothing(page)


def test_without_its_token_a_page_asks_for_it(browser, served):
    _, link = served
    page_of, _, token = link.partition("#token=")
    with opened(browser, page_of) as page:
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        page.get_by_text("Whose studio is this?").wait_for()
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Open").click()
        page.get_by_text("Drop pictures of good parts here").wait_for()
        assert unnamed(page) == []
