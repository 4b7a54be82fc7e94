# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values against an argument spec: all that is wrong, each with its full name, and the values as their types.

Ansible's own validator names an option without the path to it, stops where a type is wrong and shows the value.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import yaml
from ansible.module_utils.common.validation import check_type_bool, check_type_float, check_type_int, check_type_list
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _shapes

# What may hold line breaks, since it reaches no line of a file as it is, and what has rules of its own for them.
OF_ANY_TEXT = re.compile(
    r"(^|[._])(certificate_content|migrate\.command|raw_env|access_log_format|headers)$"
    r"|^(source|supervisor|supervisor_(programs|fcgi_programs|event_listeners|unix_http_servers?|supervisorctl))\."
)
# The place of an item in the name of a list.
INDEX = re.compile(r"\[\d+\]")
ROLES = Path(__file__).resolve().parents[2] / "roles"

Spec = Mapping[str, Mapping[str, Any]]
# The least and the most of a number, by its full name; a number that is not there is 0 or more.
Ranges = Mapping[str, tuple[int, Optional[int]]]


# Each worker of Ansible reads the specs again, which takes ten times as long without libyaml.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def role_options(role: str, entry_point: str = "main") -> dict[str, Any]:
    """The options in a role's argument spec, by their names."""
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    specs = yaml.load(text, Loader=YAML_LOADER)
    options: dict[str, Any] = specs["argument_specs"][entry_point]["options"]
    return options


def problems(given: Mapping[str, Any], spec: Spec, prefix: str = "", ranges: Optional[Ranges] = None) -> Iterator[str]:
    """Unknown names, wrong types, and values that are no choice or out of their range, a sentence each.

    A value of null counts as left out.
    """
    for name, value in given.items():
        if name not in spec:
            yield f"unknown variable {prefix}{name}; {_hint(str(name), spec, prefix)}"
        elif value is not None:
            yield from _value_problems(f"{prefix}{name}", value, spec[name], ranges or {})
    for name, option in spec.items():
        if option.get("required") and given.get(name) is None:
            yield f"{prefix}{name} is missing"


def _hint(name: str, spec: Spec, prefix: str) -> str:
    near = difflib.get_close_matches(name, list(spec), n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(sorted(spec))}"


def _value_problems(label: str, value: Any, option: Mapping[str, Any], ranges: Ranges) -> Iterator[str]:
    kind = option.get("type", "str")
    shown = f"{label} has a value that is not shown" if option.get("no_log") else f"{label} is {_shown(value)}"
    try:
        plain = CONVERTERS[kind](value)
    except (TypeError, ValueError):
        yield f"{shown}: it must be {MEANINGS[kind]}"
        return
    if kind == "list":
        element = {key: found for key, found in option.items() if key in ("choices", "options", "no_log")}
        element["type"] = option.get("elements", "raw")
        for number, item in enumerate(plain):
            yield from _value_problems(f"{label}[{number}]", item, element, ranges)
    elif option.get("choices") and plain not in option["choices"]:
        yield f"{shown}: it must be one of {_choices(option)}"
    elif kind == "dict" and "options" in option:
        yield from problems(plain, option["options"], f"{label}.", ranges)
    elif kind in ("int", "float"):
        low, high = ranges.get(INDEX.sub("", label), (0, None))
        if plain < low or (high is not None and plain > high):
            allowed = f"{low} or more" if high is None else f"from {low} to {high}"
            yield f"{label} is {plain}: it must be {allowed}"
    elif kind in ("str", "path") and _shapes.has_control(plain) and _is_one_line(label, option):
        yield f"{shown}: it may hold no line break or other control character"


def _is_one_line(label: str, option: Mapping[str, Any]) -> bool:
    return not option.get("no_log") and not OF_ANY_TEXT.search(INDEX.sub("", label))


def _choices(option: Mapping[str, Any]) -> str:
    return ", ".join(str(choice) if choice != "" else "nothing" for choice in option["choices"])


def _shown(value: Any) -> str:
    """A value as a message has room for it."""
    text = repr(str(value) if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def coerced(given: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """The values as the types that the spec gives them, which they must have passed; without nulls."""
    return {
        name: _coerced_value(value, spec[name]) for name, value in given.items() if name in spec and value is not None
    }


def _coerced_value(value: Any, option: Mapping[str, Any]) -> Any:
    kind = option.get("type", "str")
    plain = CONVERTERS[kind](value)
    if kind == "list":
        element = {"type": option.get("elements", "raw"), "options": option.get("options")}
        return [_coerced_value(item, element) for item in plain]
    if kind == "dict" and option.get("options"):
        return coerced(plain, option["options"])
    return plain


def unvaulted(value: Any) -> Any:
    """Up to ansible-core 2.18 a value that was encrypted in place is no str, but decrypts itself."""
    data = getattr(value, "data", None)
    return data if isinstance(data, str) else value


def kind_of(value: Any) -> str:
    """The name of a value's type, free of Ansible's own types."""
    if value is None:
        return "null"
    kinds = (bool, int, float, str, list, tuple, dict)
    return next((kind.__name__ for kind in kinds if isinstance(value, kind)), type(value).__name__)


def _text(value: Any) -> str:
    value = unvaulted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TypeError


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return int(check_type_int(value))


def _decimal(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(check_type_float(value))


def _truth(value: Any) -> bool:
    return bool(check_type_bool(value))


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    if isinstance(value, (Mapping, bool)):
        raise TypeError
    return list(value if isinstance(value, tuple) else check_type_list(value))


def _raw(value: Any) -> Any:
    return value


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "bool": _truth,
    "dict": _mapping,
    "float": _decimal,
    "int": _whole,
    "list": _list,
    "path": _text,
    "raw": _raw,
    "str": _text,
}
MEANINGS = {
    "bool": "true or false",
    "dict": "a mapping (dict)",
    "float": "a number",
    "int": "a whole number (int)",
    "list": "a list",
    "path": "a path",
    "raw": "anything",
    "str": "text",
}
