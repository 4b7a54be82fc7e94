"""Files that belong together: all or none, and no secret for an instant."""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files import file_set as _file_set
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._files.file_set import (
    CandidateCheck,
    FileSetError,
    Item,
    apply,
    check_candidates,
    compare,
    leftovers,
    resolve_digest,
    set_digest,
)

ME = str(os.getuid())
MINE = str(os.getgid())


def file(path: Path, content: str = "x\n", mode: int = 0o644, secret: bool = False) -> Item:
    return Item(str(path), ME, MINE, mode, content.encode(), secret)


def write(*items: Item) -> list[str]:
    differences = [difference for difference in map(compare, items) if difference]
    apply(differences, lambda path: None)
    return [difference.item.path for difference in differences]


def test_directory_file_and_link(tmp_path) -> None:
    items = [
        Item(str(tmp_path / "d"), ME, MINE, 0o750),
        file(tmp_path / "d" / "f", mode=0o640),
        Item(str(tmp_path / "l"), ME, MINE, 0o777, target="d/f"),
    ]
    assert len(write(*items)) == 3
    assert (tmp_path / "l").read_text() == "x\n"
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "d" / "f").stat().st_mode) == 0o640
    assert write(*items) == []
    assert sorted(os.listdir(tmp_path)) == ["d", "l"]


@pytest.mark.parametrize("change", ["content", "mode"])
def test_what_differs_is_named_and_mended(tmp_path, change) -> None:
    place = tmp_path / "f"
    write(file(place))
    inode = place.stat().st_ino
    if change == "content":
        place.write_text("drift")
    else:
        place.chmod(0o600)
    difference = compare(file(place))
    assert difference and change in difference.reasons[0]
    write(file(place))
    assert place.read_text() == "x\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    # A rename puts a new file into the place of a changed one; a mode is changed where it is.
    assert (place.stat().st_ino == inode) == (change == "mode")


def test_a_strict_umask_changes_nothing(tmp_path) -> None:
    before = os.umask(0o077)
    try:
        write(Item(str(tmp_path / "d"), ME, MINE, 0o755), file(tmp_path / "d" / "f"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "d" / "f").stat().st_mode) == 0o644


def test_secret_content_does_not_show(tmp_path) -> None:
    place = tmp_path / "f"
    write(file(place, "old hunter1", secret=True))
    difference = compare(file(place, "new hunter2", secret=True))
    assert difference
    assert "hunter" not in difference.before + difference.after


def test_secret_lines_do_not_show(tmp_path) -> None:
    place = tmp_path / "f"
    place.write_text("a=1\nPassword = hunter1\npassword=hunter0\n")
    item = dataclasses.replace(file(place, "a=2\npassword=hunter2\npassword=hunter0\n"), secret_lines="(?i)password *=")
    difference = compare(item)
    assert difference.before == "a=1\nPassword =(other secret, not shown)\npassword=(secret, not shown)\n"
    assert difference.after == "a=2\npassword=(secret, not shown)\npassword=(secret, not shown)\n"
    with pytest.raises(FileSetError, match="secret_lines"):
        compare(dataclasses.replace(item, secret_lines="("))


def test_a_secret_is_closed_from_its_first_instant(tmp_path, monkeypatch) -> None:
    seen = []
    real = os.fdopen

    def spy(handle, *args):
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return real(handle, *args)

    monkeypatch.setattr(_file_set.os, "fdopen", spy)
    write(file(tmp_path / "f", mode=0o640, secret=True))
    assert seen == [0o600]


def test_nothing_is_replaced_when_one_can_not_be_written(tmp_path) -> None:
    write(file(tmp_path / "a", "old\n"))
    with pytest.raises(FileSetError, match="no directory"):
        write(file(tmp_path / "a", "new\n"), file(tmp_path / "missing" / "b"))
    assert (tmp_path / "a").read_text() == "old\n"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_something_else_in_the_place(tmp_path, kind) -> None:
    place = tmp_path / "p"
    if kind == "directory":
        place.write_text("x")
        item = Item(str(place), ME, MINE, 0o755)
    else:
        place.mkdir()
        item = file(place)
    with pytest.raises(FileSetError, match=f"is not a {kind}"):
        compare(item)


@pytest.mark.parametrize(("owner", "group", "word"), [("nobody-here", MINE, "user"), (ME, "no-such-group", "group")])
def test_unknown_owner(tmp_path, owner, group, word) -> None:
    with pytest.raises(FileSetError, match=f"no {word} "):
        write(Item(str(tmp_path / "f"), owner, group, 0o644, b"x"))


def test_digest_covers_all_other_files_and_is_the_hosts_own(tmp_path) -> None:
    program = file(tmp_path / "p", "digest={set_digest}\n")
    items = [file(tmp_path / "a", "1"), file(tmp_path / "b", "2"), program]
    resolved = resolve_digest(items, b"key")
    assert resolved[2].content == f"digest={set_digest(items, b'key')}\n".encode()
    assert set_digest([file(tmp_path / "a", "3"), *items[1:]], b"key") != set_digest(items, b"key")
    assert set_digest(items, b"another host") != set_digest(items, b"key")
    assert resolve_digest(resolved, b"key") == resolved


def test_what_an_earlier_set_left_is_removed(tmp_path) -> None:
    (tmp_path / "folder.key").mkdir()
    write(file(tmp_path / "old.key", "s3cret"), file(tmp_path / "new.key"), file(tmp_path / "other.crt"))
    (tmp_path / "link.key").symlink_to("nowhere")
    wanted = [file(tmp_path / "new.key")]
    gone = leftovers([str(tmp_path / "*.key")], wanted)
    assert [Path(item.path).name for item in gone] == ["link.key", "old.key"]
    differences = [difference for difference in map(compare, [*wanted, *gone]) if difference]
    assert [difference.reasons for difference in differences] == [["removed"], ["removed"]]
    assert not [difference for difference in differences if difference.before or difference.after]
    apply(differences, lambda path: None)
    assert sorted(os.listdir(tmp_path)) == ["folder.key", "new.key", "other.crt"]
    assert leftovers([str(tmp_path / "*.key")], wanted) == []


def test_nothing_is_removed_when_one_can_not_be_written(tmp_path) -> None:
    write(file(tmp_path / "old"))
    with pytest.raises(FileSetError, match="no directory"):
        write(*leftovers([str(tmp_path / "o*")], []), file(tmp_path / "missing" / "b"))
    assert os.listdir(tmp_path) == ["old"]


class TestChecks:
    def run(self, tmp_path: Path, script: str, timeout: int = 20) -> None:
        item = file(tmp_path / "etc" / "app.conf", "wanted\n", 0o600)
        check = CandidateCheck([sys.executable, "-c", script, "{stage}" + item.path], timeout=timeout)
        check_candidates([item], [check], str(tmp_path))

    def test_the_candidate_lies_at_its_full_path(self, tmp_path) -> None:
        self.run(tmp_path, "import sys; assert open(sys.argv[1]).read() == 'wanted\\n'")
        assert os.listdir(tmp_path) == []

    def test_missing_directories_are_there_for_a_check_and_go_when_it_fails(self, tmp_path) -> None:
        directory = Item(str(tmp_path / "d"), ME, MINE, 0o755)
        nested = Item(str(tmp_path / "d" / "e"), ME, MINE, 0o755)
        check = CandidateCheck(["/usr/bin/test", "-d", nested.path])
        check_candidates([directory, nested], [check], str(tmp_path))
        assert os.listdir(tmp_path) == ["d"]
        os.rmdir(nested.path)
        with pytest.raises(FileSetError):
            check_candidates([directory, nested], [CandidateCheck(["/bin/false"])], str(tmp_path))
        assert os.listdir(tmp_path) == ["d"]
        assert os.listdir(tmp_path / "d") == []

    def test_the_rest_of_a_tree_lies_beside_the_candidates(self, tmp_path) -> None:
        tree, stages = tmp_path / "etc", tmp_path / "stages"
        stages.mkdir()
        (tree / "conf.d").mkdir(parents=True)
        write(file(tree / "conf.d" / "theirs", mode=0o600), file(tree / "conf.d" / "old"), file(tree / "main", "old"))
        (tree / "link").symlink_to("main")
        os.mkfifo(tree / "fifo")
        items = [file(tree / "main", "new"), *leftovers([str(tree / "conf.d" / "o*")], [])]
        script = (
            "import os, sys; os.chdir(sys.argv[1]); print(oct(os.stat('conf.d/theirs').st_mode))\n"
            "print(sorted(os.listdir('.')), os.listdir('conf.d'), open('link').read()); sys.exit(1)"
        )
        check = CandidateCheck([sys.executable, "-c", script, "{stage}" + str(tree)])
        with pytest.raises(FileSetError) as caught:
            check_candidates(items, [check], str(stages), context=[str(tree), str(tmp_path / "missing")])
        assert "0o100600\n['conf.d', 'link', 'main'] ['theirs'] new" in str(caught.value)
        assert os.listdir(stages) == []
        assert (tree / "main").read_text() == "old"

    def test_a_failure_names_the_final_paths(self, tmp_path) -> None:
        with pytest.raises(FileSetError) as caught:
            self.run(tmp_path, "import sys; sys.exit('bad: ' + sys.argv[1])")
        assert f"bad: {tmp_path}/etc/app.conf (the check" in str(caught.value)

    def test_a_failure_names_the_cause_first(self, tmp_path) -> None:
        with pytest.raises(FileSetError) as caught:
            self.run(tmp_path, "print('noise'); import no_such_module")
        assert str(caught.value).startswith(
            "ModuleNotFoundError: No module named 'no_such_module' (the check ended with status 1)"
        )
        assert "noise" in str(caught.value)
        assert os.listdir(tmp_path) == []

    def test_a_silent_failure(self, tmp_path) -> None:
        with pytest.raises(FileSetError, match="status 7 and printed nothing"):
            self.run(tmp_path, "raise SystemExit(7)")

    def test_what_a_check_leaves_in_a_directory_hides_no_failure(self, tmp_path) -> None:
        folder = Item(str(tmp_path / "made"), ME, MINE, 0o755)
        check = CandidateCheck(["/bin/sh", "-c", f"touch {tmp_path}/made/left; echo the cause; exit 1"])
        with pytest.raises(FileSetError, match="the cause"):
            check_candidates([folder], [check], str(tmp_path))
        assert (tmp_path / "made" / "left").exists()

    def test_a_check_that_hangs_is_ended_with_its_children(self, tmp_path) -> None:
        script = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
        with pytest.raises(FileSetError, match="did not end within 1 s") as caught:
            self.run(tmp_path, script, timeout=1)
        child = int(str(caught.value).splitlines()[-1])
        threading.Event().wait(0.2)
        state = Path(f"/proc/{child}/stat")
        assert not state.exists() or state.read_text().split()[2] == "Z"

    def test_a_missing_program(self, tmp_path) -> None:
        item = file(tmp_path / "f")
        with pytest.raises(FileSetError, match="could not start: /no/such"):
            check_candidates([item], [CandidateCheck(["/no/such"])], str(tmp_path))

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
    def test_as_another_user(self, tmp_path) -> None:
        # Below the test's own folder others may not pass.
        item = Item("/etc/app.conf", "root", "nogroup", 0o640, b"x")
        script = (
            "import os, sys; assert os.getuid() == os.geteuid() != 0; assert 0 not in os.getgroups(); open(sys.argv[1])"
        )
        check_candidates(
            [item], [CandidateCheck(["/usr/bin/python3", "-c", script, "{stage}/etc/app.conf"], user="nobody")], "/run"
        )
        with pytest.raises(FileSetError, match="PermissionError"):
            closed = Item("/etc/app.conf", "root", "root", 0o640, b"x")
            check_candidates(
                [closed],
                [CandidateCheck(["/usr/bin/python3", "-c", script, "{stage}/etc/app.conf"], user="nobody")],
                "/run",
            )


def test_the_cause_is_the_end_of_the_last_traceback() -> None:
    lines = ["Traceback (most recent call last):", "  File x", "KeyError: 1", "later noise"]
    assert _file_set.likely_cause(lines) == "KeyError: 1"
    assert _file_set.likely_cause(["a", "Error: c", "For help, use -h"]) == "Error: c"
    nginx = "2026/11/24 13:59:37 [emerg] 1506#1506: unknown directive"
    assert _file_set.likely_cause(["a", nginx, "nginx: configuration test failed"]) == nginx
    assert _file_set.likely_cause(["a", "  b "]) == "b"
