"""Markers and specifiers, against what `packaging` says of the same."""

from __future__ import annotations

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.markers import (
    MarkerError,
    applies,
    satisfies,
)

LINUX = {
    "implementation_name": "cpython",
    "implementation_version": "3.12.1",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "5.14.0",
    "platform_system": "Linux",
    "platform_version": "#1 SMP",
    "python_full_version": "3.12.1",
    "python_version": "3.12",
    "sys_platform": "linux",
    "extra": "",
}
MARKERS = [
    ("sys_platform == 'win32'", False),
    ("sys_platform != 'win32'", True),
    ('sys_platform == "linux" and platform_machine == "x86_64"', True),
    ("python_version >= '3.9'", True),
    ("python_version < '3.9'", False),
    ("'3.9' <= python_version", True),
    ("python_version > '3.2'", True),
    ("python_version == '3.*'", True),
    ("python_version != '3.12.*'", False),
    ("python_full_version < '3.12.1'", False),
    ("python_full_version ~= '3.12.0'", True),
    ("python_full_version ~= '3.11.0'", False),
    ("python_version == '3.12.0'", True),
    ("os_name == 'nt' or sys_platform == 'linux' and python_version < '3'", False),
    ("(os_name == 'nt' or sys_platform == 'linux') and python_version > '3'", True),
    ("sys_platform == 'win32' or sys_platform == 'linux'", True),
    ("platform_machine in 'x86_64 aarch64'", True),
    ("platform_machine not in 'aarch64 ppc64le'", True),
    ("platform_machine not  in 'x86_64'", False),
    ("extra == 'fast'", False),
    ("platform_version == '#1 SMP'", True),
    ("platform_version == '#1 is ~= or'", False),
    ("implementation_name == 'cpython' and (python_version >= '3.13' or platform_system == 'Linux')", True),
]


@pytest.mark.parametrize(("marker", "expected"), MARKERS)
def test_marker(marker, expected):
    assert applies(marker, LINUX) is expected


@pytest.mark.parametrize(("marker", "expected"), MARKERS)
def test_packaging_agrees(marker, expected):
    packaging = pytest.importorskip("packaging.markers")
    assert packaging.Marker(marker).evaluate(LINUX) is expected


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("'fast' in extras", True),
        ("'Fast_' in extras", False),
        ("'slow' in extras", False),
        ("'slow' not in extras and 'ops' in dependency_groups", True),
        ("'My_Group' in dependency_groups", True),
    ],
)
def test_pylock_sets(marker, expected):
    chosen = {**LINUX, "extras": ("fast",), "dependency_groups": ("ops", "my-group")}
    assert applies(marker, chosen) is expected


@pytest.mark.parametrize(
    "marker",
    [
        "sys_platform ==",
        "sys_platform = 'linux'",
        "(sys_platform == 'linux'",
        "sys_platform == 'linux' or",
        "sys_platform == 'linux' 'x'",
        "colour == 'red'",
        "python_version < 'soon'",
        "sys_platform < 'linux'",
        "python_version ~= '3'",
        # Python alone understands these.
        "python_version is '3.12'",
        "python_version ~= not '3.12'",
        "'3.9' <= python_version <= '3.13'",
        "not sys_platform == 'win32'",
        "sys_platform == u'linux'",
        "sys_platform == '\\x6cinux'",
        "sys_platform == f'linux'",
        "sys_platform == 'linux' # here",
        "sys_platform.lower() == 'linux'",
        "__import__('os').name == 'posix'",
        "True",
        "sys_platform == 'linux'\0",
        "(" * 1000 + "sys_platform == 'linux'" + ")" * 1000,
    ],
)
def test_what_is_not_understood_is_an_error(marker):
    with pytest.raises(MarkerError):
        applies(marker, LINUX)


@pytest.mark.parametrize(
    ("specifiers", "expected"),
    [("", True), (">=3.9", True), (">=3.9,<3.12", False), (">= 3.12, != 3.12.2", True), ("==3.12.*", True)],
)
def test_specifiers(specifiers, expected):
    assert satisfies("3.12.1", specifiers) is expected


def test_a_prerelease_interpreter_counts_as_its_release():
    assert satisfies("3.15.0rc1", ">=3.15")


def test_a_specifier_that_is_none():
    with pytest.raises(MarkerError, match="three"):
        satisfies("3.12.1", "three")
