"""The documents hang together: every link leads somewhere, and every page is found from the index."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
MARKS = re.compile(r"[^\w\- ]")


def anchors(page: Path) -> set[str]:
    headings = HEADING.findall(CODE.sub("", page.read_text()))
    return {MARKS.sub("", heading.strip().lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[Path, str, str]]:
    """Where the links of a page within the repository lead: the file, the anchor, and as it is written."""
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if not link.startswith(("http://", "https://")):
            file, _, anchor = link.partition("#")
            yield (page.parent / file).resolve() if file else page, anchor, link


@pytest.mark.behaviour("docs:links:lead-somewhere")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [link for file, _, link in links(page) if not file.exists()]
    lost = [
        link for file, anchor, link in links(page) if anchor and file.suffix == ".md" and anchor not in anchors(file)
    ]
    assert (missing, lost) == ([], [])


@pytest.mark.behaviour("docs:links:lead-somewhere")
def test_every_page_is_found_from_the_index() -> None:
    linked = {file for file, _, _ in links(ROOT / "docs" / "index.md")}
    wanted = {page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "decisions"} - {
        ROOT / "docs" / "index.md"
    }
    assert wanted <= linked
