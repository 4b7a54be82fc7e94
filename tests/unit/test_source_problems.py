"""The shape of a source, as the controller's check and the module's action plugin refuse it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils._source import problems

pytestmark = pytest.mark.controller

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "repo",
    [
        "https://git.example.com/orders.git",
        "http://git.example.com:8080/orders.git",
        "https://[::1]:8443/orders",
        "ssh://git@git.example.com:2222/team/orders.git",
        "ssh://git.example.com/~me/orders",
        "git://git.example.com/orders.git",
        "git@git.example.com:team/orders.git",
        "deploy-key:team/orders.git",
        "git@git.example.com:/srv/orders.git",
        "file:///srv/orders.git",
        "/srv/orders.git",
    ],
)
def test_repositories(repo) -> None:
    assert list(problems({"repo": repo})) == []


@pytest.mark.parametrize(
    "repo",
    [
        "--upload-pack=x",
        "--upload-pack=touch /root/x;",
        "--upload-pack=touch${IFS}/root/x;",
        "-x:y",
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "fd::17",
        "http::https://git.example.com/x",
        "ftp://git.example.com/x",
        "git+ssh://git.example.com/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://%2doProxyCommand=x/y",
        "ssh://-x@git.example.com/y",
        "-oProxyCommand=x:y",
        "git.example.com:-x",
        "file://git.example.com/x",
        "https://git.example.com/a b",
        "https://git.example.com/x\nfoo",
        "/srv/x\x1b[2J",
        "../orders",
        "orders",
        "~/orders",
        "https:///x",
        "https://git.example.com",
    ],
)
def test_what_is_no_repository(repo) -> None:
    found = list(problems({"repo": repo}))
    assert found
    assert all(problem.startswith("source.repo is ") and problem.isprintable() for problem in found)


@pytest.mark.parametrize(
    "repo",
    [
        "https://me:hunter2@git.example.com/x.git",
        "https://hunter2@git.example.com/x.git",
        "ssh://git:hunter2@git.example.com/x.git",
        "https://me:hunt@er2/hunter2@git.example.com/x",
        "me:hunter2@git.example.com:x.git",
    ],
)
def test_a_password_is_refused_and_not_shown(repo) -> None:
    (found,) = problems({"repo": repo})
    assert found.startswith("source.repo ")
    assert "hunter2" not in found
    assert "***@" in found


@pytest.mark.parametrize(
    "version", ["v1.4.2", "HEAD", "main", "feature/x-1", "refs/tags/v1", "3f78685", "1.0+local", "release@2", 20250101]
)
def test_versions(version) -> None:
    assert list(problems({"repo": "/srv/x", "version": version})) == []


@pytest.mark.parametrize(
    "version",
    [
        "--upload-pack=touch /tmp/x",
        "-x",
        "a..b",
        "main~1",
        "main^",
        "a:b",
        "v?",
        "v*",
        "v[1]",
        "a\\b",
        "a b",
        "a\nb",
        "a\x7f",
        "@",
        "main@{1}",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.",
        1.1,
        True,
    ],
)
def test_what_is_no_version(version) -> None:
    found = list(problems({"repo": "/srv/x", "version": version}))
    assert found
    assert all(problem.startswith("source.version is ") and problem.isprintable() for problem in found)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (
            {"archive": "http://x/a.tar.gz", "checksum": "sha256:00"},
            "source.checksum is 'sha256:00': it must be sha256:",
        ),
        ({"archive": "file:///etc/passwd", "checksum": DIGEST}, "source.archive is 'file:///etc/passwd': an address"),
        ({"archive": "https://me:hunter2@/a", "checksum": DIGEST}, "source.archive is 'https://***@/a'"),
        ({"path": "/srv/a\nb"}, "source.path is '/srv/a\\nb': it has a line break"),
        ({"repo": "git@x:y", "key_file": "id"}, "source.key_file is 'id': it must be the full path"),
        ({"path": "/x", "include": ["config/.env"]}, "source.include has 'config/.env': patterns are compared"),
        ({"path": "/x", "exclude": ["docs/"]}, "source.exclude has 'docs/': patterns are compared"),
    ],
)
def test_other_shapes(source: dict[str, Any], word: str) -> None:
    (found,) = problems(source)
    assert found.startswith(word)
    assert "hunter2" not in found


@pytest.mark.parametrize(
    "source",
    [
        {"archive": "https://me:pw@x.example.com/a.tar.gz", "checksum": DIGEST},
        {"archive": "/srv/a b.tar.gz"},
        {"path": "~/src", "exclude": ["*.log"], "include": [".env"]},
        {"repo": "git@x:y", "key_file": "/root/.ssh/orders"},
        {},
    ],
)
def test_what_is_accepted(source: dict[str, Any]) -> None:
    assert list(problems(source)) == []
