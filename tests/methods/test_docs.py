"""The page of methods has a section for each, and every section has what a user looks for."""

import re
from pathlib import Path

import pytest

from autoembed.methods import METHODS

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
OWN = ("full_precision", "fp16", "frequency_cut")  # no paper to name


@pytest.mark.parametrize("name", METHODS)
def test_a_section_tells_when_bytes_training_memory_limits_and_source(name: str) -> None:
    section = SECTIONS[name]
    for part in ("When", "Bytes", "Training memory", "Limits"):
        assert f"\n- {part}: " in section, f"docs/methods.md, section {name}: no line '- {part}: '"
    has_source = "arxiv.org/abs/" in section or "doi.org/" in section
    assert has_source != (name in OWN), f"docs/methods.md, section {name}: which paper is it of?"


@pytest.mark.parametrize("name", METHODS)
def test_the_table_at_the_top_has_a_line_for_it(name: str) -> None:
    assert f"\n| `{name}` | " in PAGE
