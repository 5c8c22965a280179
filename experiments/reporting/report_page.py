"""Turns the report's content into one self-contained HTML page, and into a PDF; alone knows Jinja2 and WeasyPrint."""

from __future__ import annotations

import base64
from importlib.resources import files
from pathlib import Path

import jinja2

from experiments.errors import ExperimentError
from experiments.reporting.report_content import Report

TEMPLATE, STYLE = "report.html.j2", "report.css"
PANGO = "apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"


def page_of(report: Report, on_paper: bool = False) -> str:
    """Return the page, with its style and pictures inside; on paper nothing is folded away."""
    room = jinja2.Environment(loader=jinja2.PackageLoader("experiments.reporting", "."), autoescape=True,
                              undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room.filters |= {"inside": _inside, "percent": _percent, "ratio": _ratio, "yesno": _yesno}
    style = files("experiments.reporting").joinpath(STYLE).read_text(encoding="utf-8")
    return room.get_template(TEMPLATE).render(report=report, style=style, on_paper=on_paper)


def pdf_of(page: str) -> bytes:
    """Return `page` as a PDF; raises ExperimentError where the libraries that lay out text are missing."""
    try:
        from weasyprint import HTML
    except OSError as error:  # Pango, by which WeasyPrint sets text, is a system library
        raise ExperimentError(f"a PDF needs the system's Pango: {PANGO} ({str(error).splitlines()[0]})") from error
    made: bytes = HTML(string=page).write_pdf()
    return made


def _inside(path: Path) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _percent(share: float | None) -> str:
    return "none yet" if share is None else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _yesno(value: bool | None) -> str:
    return {None: "", True: "yes", False: "no"}[value]
