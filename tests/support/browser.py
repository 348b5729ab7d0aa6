"""A real browser, headless, that no network leads out of."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

#: A page that asks for anything but this machine gets no answer.
_CUT = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@contextmanager
def chromium():
    """Debian's Chromium by Playwright; a test that needs it is skipped where one is missing."""
    path = shutil.which("chromium")
    if not path:
        pytest.skip("no chromium; ./check-needs brings it")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright; install defectrt[test]")
    words = [_CUT, "--disable-gpu", "--disable-dev-shm-usage"]
    if os.getuid() == 0:
        words.append("--no-sandbox")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=words)
        yield browser
        browser.close()


@contextmanager
def opened(browser, url, size=(1440, 900), **options):
    """A page of a URL in a window of that size; its messages and requests are in ``told``."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, is_mobile=width < 500, **options
    )
    page = context.new_page()
    page.told = []
    page.on("console", lambda message: page.told.append(message.text))
    page.on("pageerror", lambda error: page.told.append(str(error)))
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(url)
    yield page
    context.close()


#: Elements that a screen reader has no name for, and text with too little contrast.
_UNNAMED = """() => {
  const seen = (e) => e.checkVisibility() && e.getClientRects().length;
  const text = (e) => (e.getAttribute("aria-label") || e.textContent || e.title || "").trim();
  const name = (e) => text(e) || [...(e.labels || [])].map(text).join("");
  const wanted = "button, a, input, select, textarea, canvas, iframe, progress, dialog, [role=img]";
  const found = [...document.querySelectorAll(wanted)].filter((e) => seen(e) && !name(e));
  const images = [...document.images].filter((e) => seen(e) && !e.hasAttribute("alt"));
  return [...found, ...images].map((e) => e.outerHTML.slice(0, 120));
}"""
_FAINT = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255, 255];
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")].filter((e) => {
    if (!e.checkVisibility() || !own(e) || e.closest("svg, :disabled, script")) return false;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
  }).map((e) => e.textContent.slice(0, 60));
}"""


def unnamed(page):
    """What a screen reader cannot name."""
    return page.evaluate(_UNNAMED)


def faint(page):
    """Texts whose contrast to what is behind them is below 4.5, as WCAG AA has it."""
    return page.evaluate(_FAINT)


def sideways(page):
    """How many px a page is wider than its window."""
    return page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
