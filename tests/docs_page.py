"""Takes the files of a documentation page out of it: each stands under its name in bold, as a block of code."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "microservices.md"
_FILE = re.compile(r"^\*\*`([\w.]+)`\*\*\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^`\.venv/bin/python try_scores\.py`.*?prints\n\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_files(directory: Path) -> list[str]:
    """Write the page's files to `directory`, as a reader would; return their names."""
    found = _FILE.findall(PAGE.read_text())
    for name, content in found:
        (directory / name).write_text(content)
    return [name for name, _ in found]


def printed() -> str:
    """Return what the page says that its script prints."""
    (said,) = _PRINTED.findall(PAGE.read_text())
    return said
