"""Locks in three formats become hashed requirements, or are refused with a reason."""

from __future__ import annotations

import re

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.lock import (
    LockError,
    check_python,
    format_of,
    has_user_info,
    parse_additions,
    parse_pylock,
    parse_requirements,
    requires_python_of_uv_lock,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.project import project_pin

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64
LINUX = {"sys_platform": "linux", "python_version": "3.12", "python_full_version": "3.12.1", "extra": ""}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("uv.lock", "uv"),
        ("pylock.toml", "pylock"),
        ("pylock.prod.toml", "pylock"),
        ("requirements.txt", "requirements"),
        ("orders.lock", "requirements"),
        ("pylock.txt", "requirements"),
    ],
)
def test_the_name_shows_the_format(name, expected):
    assert format_of(name) == expected


def test_requirements_as_tools_write_them():
    lock = parse_requirements(
        f"# compiled\n\nalpha==1.0 \\\n    --hash={A} \\\n    --hash={B}\n    # via orders\n"
        f"Beta_Two[fast,x]==2.0+cpu ; sys_platform == 'linux' \\\n  --hash={A}  # why\n"
        f"gamma @ https://files.example.com/gamma-1.0.whl#frag --hash {B}\n"
        f"delta===1!2.0.post1 --hash={A}"
    )
    assert [item.line for item in lock.requirements] == [
        f"alpha==1.0 --hash={A} --hash={B}",
        f"Beta_Two[fast,x]==2.0+cpu ; sys_platform == 'linux' --hash={A}",
        f"gamma @ https://files.example.com/gamma-1.0.whl#frag --hash={B}",
        f"delta==1!2.0.post1 --hash={A}",
    ]
    assert [item.key for item in lock.requirements] == ["alpha", "beta-two", "gamma", "delta"]
    assert lock.warnings == ()


def test_index_options_are_not_followed_and_their_values_not_shown():
    lock = parse_requirements(
        "--index-url https://bob:s3cret@pypi.example.com/simple\n-f /srv/wheels\n--require-hashes\n--pre\n"
        f"--only-binary :all:\nalpha==1.0 --hash={A}\n"
    )
    assert [warning.split(" of the lock")[0] for warning in lock.warnings] == [
        "--index-url on line 1",
        "-f on line 2",
        "--pre on line 4",
    ]
    assert "s3cret" not in str(lock)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"alpha==1.0 --hash={A}\n\nbeta==1.0\ngamma==2\n", "no hash: beta (line 3), gamma (line 4)"),
        ("alpha>=1.0\n", "line 1 is not a pinned requirement: 'alpha>=1.0'"),
        (f"alpha==1.* --hash={A}\n", "line 1 is not a pinned requirement"),
        (f"alpha==1.0,<2 --hash={A}\n", "line 1 is not a pinned requirement"),
        ("\n./packages/alpha\n", "line 2 is not a pinned requirement"),
        ("-r base.txt\n", "line 1 is '-r base.txt': a lock is one file"),
        ("-e .\n", "line 1 is '-e .': a lock is one file"),
        ("alpha==1.0 --hash=sha256:abc\n", "'sha256:abc' is not a hash"),
        ("alpha==1.0 --hash=md5:d41d8cd98f00b204e9800998ecf8427e\n", "is not a hash"),
        ("alpha @ git+https://git.example.com/alpha@1234\n", "no hash: alpha (line 1)"),
        (f"alpha @ https://bob:s3cret@example.com/a.whl --hash={A}\n", "line 1 (alpha) has a user name or password"),
    ],
)
def test_what_no_hash_vouches_for_is_refused(text, words):
    with pytest.raises(LockError, match=re.escape(words)) as caught:
        parse_requirements(text)
    assert "s3cret" not in str(caught.value)


def test_a_bad_line_is_shown_without_its_password():
    with pytest.raises(LockError) as caught:
        parse_requirements("https://bob:s3cret@example.com/a.whl\n")
    assert "s3cret" not in str(caught.value)
    assert "example.com" in str(caught.value)


def test_only_what_applies_here_is_the_locks_own():
    lock = parse_requirements(
        f"alpha==1.0 ; sys_platform == 'win32' --hash={A}\nbeta==1.0 ; sys_platform == 'linux' --hash={A}\n"
        f"gamma==1.0 ; platform_shape == 'round' --hash={A}\n"
    )
    assert [item.name for item in lock.applicable(LINUX)] == ["beta", "gamma"]


def test_additions():
    one, two = parse_additions([f"gunicorn==27.0.1 --hash={A}", f"Uvicorn_Worker==0.4.0 \\\n  --hash={A}\n"])
    assert (one.key, two.key) == ("gunicorn", "uvicorn-worker")
    assert two.line == f"Uvicorn_Worker==0.4.0 --hash={A}"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["gunicorn==27.0.1"], "'gunicorn==27.0.1' has no hash"),
        ([f"gunicorn --hash={A}"], "is not a pinned requirement"),
        ([f"gunicorn @ https://example.com/g.whl --hash={A}"], "names a URL"),
        ([f"G==1 --hash={A}", f"g==2 --hash={B}"], "g is in the additions twice"),
        ([f"-r x.txt --hash={A}"], "is not a pinned requirement"),
    ],
)
def test_bad_additions(lines, words):
    with pytest.raises(LockError, match=re.escape(words)):
        parse_additions(lines)


def pylock(**changes):
    package = {
        "name": "alpha",
        "version": "1.0",
        "wheels": [{"url": "https://x/alpha.whl", "hashes": {"sha256": "A" * 64, "md5": "0"}}],
        "sdist": {"url": "https://x/alpha.tar.gz", "hashes": {"sha256": "b" * 64}},
    }
    package.update(changes)
    return {"lock-version": "1.0", "packages": [package]}


def read(data, extras=(), groups=()):
    return [item.line for item in parse_pylock(data, LINUX, extras, groups).requirements]


def test_pylock_files_become_hashes():
    assert read(pylock()) == [f"alpha==1.0 --hash={A} --hash={B}"]


def test_pylock_markers_extras_and_groups():
    data = pylock(marker="sys_platform == 'linux' and 'fast' in extras")
    data.update({"extras": ["fast"], "dependency-groups": ["ops"], "default-groups": ["main"]})
    data["packages"].append({**data["packages"][0], "name": "beta", "marker": "'ops' in dependency_groups"})
    data["packages"].append({**data["packages"][0], "name": "gamma", "marker": "'main' in dependency_groups"})
    names = [line.split("==")[0] for line in read(data)]
    assert names == ["gamma"]
    assert [line.split("==")[0] for line in read(data, ["Fast"], ["ops"])] == ["alpha", "beta", "gamma"]


def test_pylock_archive_and_own_project():
    data = pylock()
    data["packages"] = [
        {"name": "app", "directory": {"path": ".", "editable": True}},
        {"name": "lib", "archive": {"url": "https://x/lib.zip", "hashes": {"sha256": "a" * 64}}},
    ]
    assert read(data) == [f"lib @ https://x/lib.zip --hash={A}"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"packages": []}, "lock-version is None"),
        ({"lock-version": "2.0"}, "lock-version is '2.0'"),
        ({**pylock(), "requires-python": ">=3.13"}, "made for Python >=3.13, and `python` is 3.12.1"),
        ({**pylock(), "requires-python": "soon"}, "requires-python is 'soon'"),
        (pylock(marker="colour == 'red'"), "package alpha: the marker"),
        (pylock(vcs={"type": "git", "url": "x", "commit-id": "y"}), "package alpha comes from a vcs source"),
        (pylock(directory={"path": "libs/alpha"}), "package alpha comes from a directory source"),
        (pylock(archive={"path": "x.zip", "hashes": {"sha256": "a" * 64}}), "archive without a URL"),
        (pylock(version="1.0 --hash"), "no usable version"),
        (pylock(name="a b"), "the name 'a b'"),
        (pylock(wheels=[{"hashes": {"md5": "0"}}], sdist=None), "no sha256, sha384 or sha512 hash"),
        (pylock(wheels=[{"hashes": {"sha256": "0"}}]), "a malformed hash"),
    ],
)
def test_bad_pylock(data, words):
    with pytest.raises(LockError, match=re.escape(words)):
        read(data)


def test_no_version():
    with pytest.raises(LockError, match="no usable version"):
        read(pylock(version=None))


@pytest.mark.parametrize(("option", "chosen"), [("extras", (["nope"], [])), ("groups", ([], ["nope"]))])
def test_extras_and_groups_that_pylock_lacks(option, chosen):
    with pytest.raises(LockError, match=f"{option} names 'nope', and the lock has none"):
        read(pylock(), *chosen)


def test_requires_python_of_uv_lock():
    text = 'version = 1\nrequires-python = ">=3.11"\n\n[[package]]\nname = "x"\n'
    assert requires_python_of_uv_lock(text) == ">=3.11"
    assert requires_python_of_uv_lock('version = 1\n[[package]]\nrequires-python = ">=3.99"\n') == ""
    with pytest.raises(LockError, match=r"made for Python >=3\.13"):
        check_python(">=3.13", LINUX)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[a]\nname = "no"\n[project]\nname = "Orders_App"\nversion = "1.2"\n[x]\nversion="9"\n',
            {"orders-app": "1.2"},
        ),
        ("[project]\nname = 'orders'\ndynamic = ['version']\n", {"orders": "(dynamic)"}),
        ('[tool.poetry]\nname = "orders"\n', {}),
    ],
)
def test_project_pin(text, expected):
    assert project_pin(text) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://pypi.example.com/simple", False),
        ("https://bob:x@pypi.example.com/simple", True),
        ("https://token@pypi.example.com/simple", True),
        ("git+https://bob@example.com/x", True),
        ("git+ssh://git@example.com/x", False),
        ("https://[bad@x", True),
    ],
)
def test_user_info(url, expected):
    assert has_user_info(url) is expected
