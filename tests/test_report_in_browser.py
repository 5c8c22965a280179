"""The report in a real browser, at three widths: nothing sticks out, every picture is there and says what it shows."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from report_room import keep_fig3, keep_fig8, keep_many_figures, keep_sensitivity

from experiments.reporting.report import collected
from experiments.reporting.report_page import page_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (1400, 900, 400)
# What the browser lays out, measured from inside; a frame of the width to be tried, since a window has a least width.
PROBE = """
const frame = document.getElementById("page");
const measured = () => {
  const page = frame.contentDocument, root = page.documentElement, width = frame.clientWidth;
  const out = {width: width, page: root.scrollWidth, beyond: [], broken: [], unnamed: [], plain: [], small: []};
  for (const one of page.querySelectorAll("body *")) {
    const at = one.getBoundingClientRect();
    if (at.width && at.right > width + 0.5 && !one.closest("thead"))
      out.beyond.push(one.tagName + ": " + one.textContent.slice(0, 60));
    if (one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display === "block" && one.clientWidth > 1)
      out.beyond.push("inside " + one.tagName + ": " + one.textContent.slice(0, 60));
  }
  for (const one of page.images) {
    if (!one.complete || !one.naturalWidth) out.broken.push(one.alt);
    if (!one.alt) out.unnamed.push(one.src.slice(0, 40));
    if (one.getBoundingClientRect().width < 250) out.small.push(one.alt);
  }
  for (const one of page.querySelectorAll("figure")) {
    const said = (one.querySelector("figcaption") || {textContent: ""}).textContent;
    if (!/Up: \\S+|Across: \\S.*; up: \\S/.test(said)) out.plain.push(said || "no caption");
  }
  out.pictures = page.images.length;
  document.body.textContent = "MEASURED" + JSON.stringify(out) + "MEASURED";
};
frame.onload = measured;  // pictures are inside the page, and so are there when it is
"""


def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here ({', '.join(BROWSERS[:3])}): on Debian, apt-get install chromium")
    return found


def laid_out(page: str, width: int, directory: Path) -> dict[str, Any]:
    """Return what a browser says of the page in a frame of `width` pixels."""
    outer = directory / f"{width}.html"
    outer.write_text(f'<!DOCTYPE html><body style="margin:0"><iframe id="page" style="border:0;width:{width}px;'
                     f'height:900px"></iframe><script>{PROBE}</script><script>frame.srcdoc = '
                     f"{json.dumps(page).replace('</', chr(60) + chr(92) + '/')};</script>")
    done = subprocess.run([browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                           f"--user-data-dir={directory}/profile", "--window-size=1500,1000",
                           "--virtual-time-budget=20000", "--dump-dom", outer.as_uri()],
                          capture_output=True, text=True, check=False, timeout=120)
    said = re.search(r"MEASURED(\{.*\})MEASURED", done.stdout, re.DOTALL)
    assert said, f"the browser measured nothing: {done.stderr[-500:]}"
    found: dict[str, Any] = json.loads(html.unescape(said[1]))
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    parent = tmp_path_factory.mktemp("results")
    keep_fig3(parent, refused="lateness p99 at s1n1: 3 us, the limit is 1 us")
    keep_fig8(parent, 1.6)
    keep_many_figures(parent)
    keep_sensitivity(parent)
    return page_of(collected(parent))


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_and_every_plot_is_there_with_its_axes(full: str, width: int, tmp_path: Path) -> None:
    found = laid_out(full, width, tmp_path)
    assert found["width"] == width and found["page"] <= width, found
    assert found["beyond"] == [] and found["broken"] == [] and found["unnamed"] == [] and found["plain"] == []
    assert found["pictures"] == 7 and found["small"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_without_any_result_the_page_fits_as_well(width: int, tmp_path: Path) -> None:
    found = laid_out(page_of(collected(tmp_path / "none")), width, tmp_path)
    assert found["page"] <= width and found["beyond"] == [] and found["pictures"] == 0


def test_the_probe_does_see_what_sticks_out_is_broken_or_unnamed(tmp_path: Path) -> None:
    bad = ('<!DOCTYPE html><body><div style="width:2000px">wide</div><img src="data:image/png;base64,AAAA">'
           "<figure><figcaption>nothing about axes</figcaption></figure>")
    found = laid_out(bad, 400, tmp_path)
    assert found["page"] > 400 and found["beyond"] and len(found["broken"]) == 1 and len(found["unnamed"]) == 1
    assert found["plain"] == ["nothing about axes"]
