"""Commits of real repositories: by every kind of name, without an option or a command that gets through."""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources import git as _source_git
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import SourceTreeError, Tree
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.git import Repository

AUTHOR = {
    "GIT_AUTHOR_NAME": "x",
    "GIT_AUTHOR_EMAIL": "x@example.com",
    "GIT_COMMITTER_NAME": "x",
    "GIT_COMMITTER_EMAIL": "x@example.com",
}


class Work:
    """A working directory that pushes to a bare repository."""

    def __init__(self, root: Path) -> None:
        self.path, self.bare = root / "work", root / "orders.git"
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.path)], check=True)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.bare)], check=True)

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.path), *arguments]
        environment = {**os.environ, **AUTHOR}
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def commit(self, content: str, name: str = "main.py") -> str:
        (self.path / name).write_text(content, encoding="utf-8")
        self.git("add", ".")
        self.git("commit", "-qm", content[:40])
        return self.git("rev-parse", "HEAD")

    def push(self) -> None:
        self.git("push", "-q", "--force", "--mirror", str(self.bare))


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(tmp_path)


@pytest.fixture
def app(tmp_path) -> Path:
    (tmp_path / "orders").mkdir(mode=0o711)
    return tmp_path / "orders"


def repository(address: Any, app: Path, key_file: str = "", scratch: str = "") -> Repository:
    return Repository("git", str(address), key_file, str(app / "repository"), scratch)


def content_of(source: Repository, version: str, place: Path) -> str:
    revision = source.revision(version)
    source.bring(revision)
    tree = Tree(str(place))
    source.unpack(revision, tree)
    tree.close()
    return (place / "main.py").read_text(encoding="utf-8")


def message_of(source: Repository, version: str = "HEAD") -> str:
    with pytest.raises(SourceTreeError) as caught:
        source.bring(source.revision(version))
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_all_names_of_a_commit(work, app, tmp_path) -> None:
    one = work.commit("one")
    work.git("tag", "v1")
    work.git("tag", "-a", "v1a", "-m", "annotated")
    work.git("branch", "feature/x")
    two = work.commit("two")
    work.push()
    source = repository(work.bare, app)
    names = ["v1", "v1a", "refs/tags/v1a", "feature/x", "heads/feature/x", "refs/heads/feature/x", one, one[:8]]
    assert {name: source.revision(name) for name in names} == dict.fromkeys(names, one)
    assert source.revision("HEAD") == source.revision("main") == two
    for number, name in enumerate(names):
        assert content_of(source, name, tmp_path / f"app{number}") == "one"
    assert content_of(source, "main", tmp_path / "app") == "two"


def test_the_clone_is_roots_alone_and_follows(work, app, tmp_path) -> None:
    work.commit("one")
    work.push()
    assert content_of(repository(work.bare, app), "HEAD", tmp_path / "a") == "one"
    assert stat.S_IMODE((app / "repository").stat().st_mode) == 0o700
    assert not (app / "repository" / "hooks").exists()
    # A branch that is rewritten, and one that turns into a directory of branches.
    work.git("branch", "topic")
    work.push()
    content_of(repository(work.bare, app), "topic", tmp_path / "b")
    work.git("commit", "-q", "--amend", "-m", "rewritten")
    work.git("branch", "-D", "topic")
    work.git("branch", "topic/x")
    two = work.commit("two")
    work.push()
    assert repository(work.bare, app).revision("main") == two
    assert content_of(repository(work.bare, app), "topic/x", tmp_path / "c") == "one"


def test_a_look_fetches_nothing(work, app) -> None:
    work.commit("one")
    work.push()
    repository(work.bare, app).revision("HEAD")
    assert list(app.iterdir()) == []


def test_check_mode_fetches_into_its_scratch_alone(work, app, tmp_path) -> None:
    one = work.commit("one")
    work.push()
    scratch = tmp_path / "scratch"
    scratch.mkdir(0o700)
    source = repository(work.bare, app, scratch=str(scratch))
    assert source.revision(one[:10]) == one
    source.bring(one)
    assert "has no such" in message_of(source, "0" * 40)
    assert list(app.iterdir()) == []


def test_a_commit_on_no_branch(work, app, tmp_path) -> None:
    work.commit("one")
    lost = work.commit("lost")
    work.git("update-ref", "refs/changes/7", "HEAD")
    work.git("reset", "-q", "--hard", "HEAD~1")
    work.push()
    assert content_of(repository(work.bare, app), lost, tmp_path / "a") == "lost"
    assert content_of(repository(work.bare, app), "refs/changes/7", tmp_path / "b") == "lost"


def test_a_clone_of_an_earlier_version_gives_way(work, app, tmp_path) -> None:
    work.commit("one")
    work.push()
    subprocess.run(["git", "clone", "-q", str(work.bare), str(app / "repository")], check=True)
    hook = app / "repository" / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    assert content_of(repository(work.bare, app), "HEAD", tmp_path / "a") == "one"
    assert (app / "repository" / "HEAD").is_file()
    assert not (app / "repository" / ".git").exists()
    assert not (tmp_path / "hooked").exists()


def test_hooks_of_the_clone_never_run(work, app, tmp_path) -> None:
    work.commit("one")
    work.push()
    content_of(repository(work.bare, app), "HEAD", tmp_path / "a")
    (app / "repository" / "hooks").mkdir()
    hook = app / "repository" / "hooks" / "reference-transaction"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    work.commit("two")
    work.push()
    assert content_of(repository(work.bare, app), "HEAD", tmp_path / "b") == "two"
    assert not (tmp_path / "hooked").exists()


@pytest.mark.parametrize("harm", ["lock", "objects"])
def test_a_broken_clone_is_created_again(work, app, tmp_path, harm) -> None:
    work.commit("one")
    work.push()
    content_of(repository(work.bare, app), "HEAD", tmp_path / "a")
    clone = app / "repository"
    if harm == "lock":
        (clone / "refs" / "heads" / "main.lock").write_text("")
        (clone / "packed-refs.lock").write_text("")
    else:
        for path in [*(clone / "objects").rglob("*")]:
            if path.is_file():
                path.chmod(0o600)
                path.write_bytes(b"")
    work.commit("two")
    work.push()
    assert content_of(repository(work.bare, app), "HEAD", tmp_path / "b") == "two"


def test_a_clone_that_lost_a_file_is_named(work, app, tmp_path) -> None:
    work.commit("one")
    work.push()
    source = repository(work.bare, app)
    content_of(source, "HEAD", tmp_path / "a")
    blob = work.git("rev-parse", "HEAD:main.py")
    (app / "repository" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceTreeError, match=f"remove {app}/repository on the host, which is created again"):
        content_of(source, "HEAD", tmp_path / "b")


def test_a_commit_with_a_link_out_is_refused(work, app, tmp_path) -> None:
    os.symlink("/etc", work.path / "out")
    work.commit("one")
    work.push()
    source = repository(work.bare, app)
    revision = source.revision("HEAD")
    source.bring(revision)
    tree = Tree(str(tmp_path / "tree"))
    with pytest.raises(SourceTreeError, match="link 'out' points outside, to '/etc'"):
        source.unpack(revision, tree)
    tree.close()


def test_a_commit_that_is_too_large_ends_git(work, app, tmp_path) -> None:
    work.commit("x" * (4 << 20))
    work.push()
    source = repository(work.bare, app)
    revision = source.revision("HEAD")
    source.bring(revision)
    tree = Tree(str(tmp_path / "tree"), max_bytes=1 << 20)
    with pytest.raises(SourceTreeError, match="larger than 1048576 bytes"):
        source.unpack(revision, tree)
    tree.close()


def test_what_is_asked_of_an_exported_file_is_answered(work, app, tmp_path) -> None:
    (work.path / ".gitattributes").write_text("main.py export-subst\nsecret export-ignore\n")
    (work.path / "secret").write_text("x")
    one = work.commit("$Format:%H %(describe:tags)$")
    work.git("tag", "v1")
    work.push()
    assert content_of(repository(work.bare, app), "v1", tmp_path / "a") == f"{one} v1"
    assert not (tmp_path / "a" / "secret").exists()


def test_a_tag_and_a_branch_of_one_name(work, app) -> None:
    one = work.commit("one")
    work.git("tag", "release")
    work.git("branch", "release")
    work.push()
    assert repository(work.bare, app).revision("release") == one
    two = work.commit("two")
    work.git("branch", "--force", "release")
    work.push()
    text = message_of(repository(work.bare, app), "release")
    assert "refs/tags/release or refs/heads/release" in text
    assert repository(work.bare, app).revision("refs/heads/release") == two


@pytest.mark.parametrize("version", ["v99", "deadbee", "0" * 40, "refs/heads/no"])
def test_a_version_that_is_not_there(work, app, version) -> None:
    work.commit("one")
    work.push()
    text = message_of(repository(work.bare, app), version)
    assert text.startswith(f"source.version is '{version}': ")
    assert "push it, or correct source.version" in text


def test_an_empty_repository(work, app) -> None:
    assert "has no such tag, branch or commit" in message_of(repository(work.bare, app))


def test_options_and_commands_do_not_get_through(work, app, tmp_path) -> None:
    """The controller refuses them before; git itself must not take them either."""
    work.commit("one")
    work.push()
    mark = tmp_path / "mark"
    for address in (f"--upload-pack=touch {mark};", f"ext::sh -c touch% {mark}", f"-c{work.bare}"):
        message_of(repository(address, app))
    for version in (f"--upload-pack=touch {mark};", f"--exec=touch {mark};"):
        message_of(repository(work.bare, app), version)
    assert not mark.exists()
    assert "its protocol is not allowed" in message_of(repository("ext::sh -c true", app))


def test_root_s_own_settings_do_not_open_them(work, app, tmp_path, monkeypatch) -> None:
    mark = tmp_path / "mark"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[protocol]\n\tallow = always\n[protocol "ext"]\n\tallow = always\n')
    monkeypatch.setenv("HOME", str(home))
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git-remote-helper").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (folder / "git-remote-helper").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for address in (f"ext::sh -c touch% {mark}", "helper::x"):
        assert "its protocol is not allowed" in message_of(repository(address, app))
    assert not mark.exists()


def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """An ssh that writes down its arguments, complains and ends."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/arguments\ncat >&2 <<'END'\n{text}\nEND\nexit 255\n"
    )
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "arguments"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("git@x: Permission denied (publickey).", ["does not let the host in", "source.key_file"]),
        ("ERROR: Repository not found.", ["there is no such repository", "correct source.repo"]),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", ["another SSH host key", "ssh-keygen -R"]),
        ("ssh: connect to host x port 22: Connection timed out", ["does not reach its server"]),
        ("ssh: Could not resolve hostname x: Name or service not known", ["does not reach its server"]),
        ("something else \x1b[31m", ["git failed", "something else \\x1b[31m"]),
    ],
)
def test_what_ssh_prints(app, tmp_path, monkeypatch, text, words) -> None:
    key = tmp_path / "a key"
    key.write_text("x")
    arguments = fake_ssh(tmp_path, monkeypatch, text)
    message = message_of(repository("git@x.example.com:team/orders.git", app, key_file=str(key)))
    assert message.startswith("source.repo is git@x.example.com:team/orders.git: ")
    for word in words:
        assert word in message
    given = arguments.read_text().splitlines()
    assert given[given.index("-i") + 1] == str(key)
    for option in ("BatchMode=yes", "StrictHostKeyChecking=accept-new", "IdentitiesOnly=yes"):
        assert option in given


def test_a_look_in_check_mode_learns_no_host_key(app, tmp_path, monkeypatch) -> None:
    arguments = fake_ssh(tmp_path, monkeypatch, "x")
    scratch = tmp_path / "scratch"
    message_of(repository("git@x.example.com:orders.git", app, scratch=str(scratch)))
    assert f"UserKnownHostsFile={scratch}/known_hosts ~/.ssh/known_hosts" in arguments.read_text().splitlines()


def test_a_key_that_is_not_there(app) -> None:
    with pytest.raises(SourceTreeError, match=r"source\.key_file is '/no/such/key': there is no such file on the host"):
        repository("git@x.example.com:x", app, key_file="/no/such/key")


@pytest.fixture
def server():
    """Answers every request with one status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            if status[0] == 401:
                self.send_header("WWW-Authenticate", "Basic realm=x")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    status = [404]
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield listener.server_port, status
    listener.shutdown()
    listener.server_close()


@pytest.mark.parametrize(
    ("answer", "word"),
    [(404, "there is no such repository"), (401, "does not let the host in"), (403, "does not let the host in")],
)
def test_what_a_web_server_says(app, server, monkeypatch, answer, word) -> None:
    port, status = server
    status[0] = answer
    # Nobody is asked at a terminal or in a window.
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false-askpass")
    assert word in message_of(repository(f"http://127.0.0.1:{port}/orders.git", app))


def test_no_server_and_no_repository(app, tmp_path) -> None:
    assert "does not reach its server" in message_of(repository("http://127.0.0.1:9/x.git", app))
    assert "there is no such repository" in message_of(repository(tmp_path / "no.git", app))


def test_a_password_of_git_s_configuration_is_not_shown(app, tmp_path, monkeypatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[url "http://me:hunter2@127.0.0.1:9/"]\n\tinsteadOf = https://git.example.com/\n')
    monkeypatch.setenv("HOME", str(home))
    text = message_of(repository("https://git.example.com/x.git", app))
    assert "127.0.0.1" in text
    assert "hunter2" not in text


def test_a_server_that_never_answers(app, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_source_git, "LOOK_TIMEOUT", 1)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nsleep 60\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    assert "does not reach its server" in message_of(repository("git@x.example.com:x", app))
    pid = int((tmp_path / "pid").read_text())
    # It was killed, and may take a moment to end.
    deadline = time.monotonic() + 10
    while not has_ended(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_repository_of_another_account(work, app) -> None:
    work.commit("one")
    work.push()
    subprocess.run(["chown", "-R", "65534", str(work.bare)], check=True)
    answer = subprocess.run(["git", "ls-remote", str(work.bare)], stderr=subprocess.PIPE, text=True, check=False)
    if "dubious" not in answer.stderr:
        pytest.skip("this git reads what belongs to others")
    assert "belongs to another account" in message_of(repository(work.bare, app))
