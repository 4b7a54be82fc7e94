"""The reference pages say what the argument specs say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import reference

pytestmark = pytest.mark.controller


@pytest.mark.parametrize("role", reference.roles())
def test_page_is_fresh(role) -> None:
    path = reference.PAGES / f"{role}.md"
    assert path.read_text(encoding="utf-8") == reference.page(role), "run .venv/bin/python tests/tools/reference.py"


def test_no_page_is_left_over() -> None:
    assert sorted(path.stem for path in reference.PAGES.glob("*.md")) == reference.roles()
