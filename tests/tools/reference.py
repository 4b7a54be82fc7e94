# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrite docs/reference/: one page of variables for each role, from its meta/argument_specs.yml."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = CHECKOUT / "docs" / "reference"
HEADER = """\
# {role}: variables

<!-- Written by tests/tools/reference.py from roles/{role}/meta/argument_specs.yml; do not edit. -->

"""
# Dictionaries whose keys another variable has, too.
SAME_KEYS = {"gunicorn_uvicorn_supervisor": ("supervisor_programs", "supervisor.md#supervisor_programs")}


def roles() -> list[str]:
    return sorted(path.parents[1].name for path in CHECKOUT.glob("roles/*/meta/argument_specs.yml"))


def page(role: str) -> str:
    specs = yaml.safe_load((CHECKOUT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    text = HEADER.format(role=role)
    return text + "\n".join(line for name, spec in specs["argument_specs"].items() for line in _entry_point(name, spec))


def _entry_point(name: str, spec: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Entry point `{name}`: {spec['short_description']}\n"
    yield f"{_text(spec.get('description', []))}\n"
    for variable, option in spec.get("options", {}).items():
        yield from _variable(variable, option)


def _variable(name: str, option: Mapping[str, Any]) -> Iterator[str]:
    yield f'<a id="{name}"></a>\n### `{name}`\n'
    yield f"{_type(option)}{_default(option, ', default ')}\n"
    yield f"{_text(option['description'])}\n"
    if option.get("choices"):
        yield f"One of {_choices(option)}.\n"
    if name in SAME_KEYS:
        yield "Its keys are those of [{}]({}).\n".format(*SAME_KEYS[name])
    if option.get("options"):
        yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
        yield "\n".join(_rows(option["options"], "")) + "\n"


def _rows(options: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, option in options.items():
        meaning = _text(option["description"]).replace("\n", " ")
        if option.get("choices"):
            meaning += f" One of {_choices(option)}."
        cells = [f"`{prefix}{name}`", _type(option), _default(option, ""), meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        if option.get("options"):
            yield from _rows(option["options"], f"{prefix}{name}.")


def _type(option: Mapping[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    kind += f" of {option['elements']}" if option.get("elements") else ""
    return f"{kind}, required" if option.get("required") else kind


def _default(option: Mapping[str, Any], before: str) -> str:
    if option.get("default") is None:
        return ""
    value = option["default"]
    shown = (
        value
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    )
    shown = shown.replace("\n...", "").strip()
    return f"{before}`{shown}`" if shown else f'{before}`""`'


def _choices(option: Mapping[str, Any]) -> str:
    return ", ".join(f"`{choice}`" if choice != "" else '`""`' for choice in option["choices"])


def _text(description: Any) -> str:
    sentences = [description] if isinstance(description, str) else description
    return re.sub(r"\b[CVOM]\((.*?)\)(?!\])", r"`\1`", "\n\n".join(" ".join(text.split()) for text in sentences))


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in PAGES.glob("*.md"):
        if path.stem not in roles():
            path.unlink()
    for role in roles():
        path = PAGES / f"{role}.md"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(page(role), encoding="utf-8")
        print(f"{path.relative_to(CHECKOUT)}: {'unchanged' if before == page(role) else 'written'}", file=sys.stderr)


if __name__ == "__main__":
    main()
