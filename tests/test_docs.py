"""Pages that are generated must be those that the code generates now."""

import re
from pathlib import Path

import pytest

from mtl.cli.docs import fill_readme, pages

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["cli.md", "configuration.md"])
def test_generated_pages_are_up_to_date(name: str):
    kept = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert kept == pages()[name], "run: python -m mtl.cli.docs docs"


def test_the_readme_has_the_configuration_keys_of_now():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "| `lora.rank` |" in readme
    assert readme == fill_readme(readme), "run: python -m mtl.cli.docs docs"


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
