"""uv_venv beside environments of the same fingerprint: copies of them, and when there are none. With the real uv."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import STAMP
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.environment import VenvError
from fixtures.uv_venv.host import UV, Host

pytestmark = pytest.mark.skipif(not os.path.exists(UV), reason="uv is not beside the interpreter")

# Nothing can be built with these.
GONE = {"uv": "/nonexistent/uv", "wheelhouse": "/nonexistent/wheelhouse"}
WANTS_UV = "uv=/nonexistent/uv does not exist"
RAISES = "def main():\n    print('alpha')\n\ndef fail():\n    raise ValueError('failed')\n"


class Releases(Host):
    """A host whose environments are those of an app's releases."""

    def release(self, name, check=False, **changes):
        folder = self.root / "releases" / name
        folder.mkdir(parents=True, exist_ok=True)
        options = {"compile_bytecode": True, "siblings": self.root / "releases" / "*" / "venv", **changes}
        return self.ensure(check, path=folder / "venv", **options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def host(tmp_path, cache):
    made = Releases(tmp_path, cache)
    made.write_lock(made.wheel("alpha", requires=["beta>=1"], body=RAISES), made.wheel("beta"))
    return made


@pytest.fixture
def first(host):
    """The build of the first release."""
    return Path(host.release("1").build)


def files_of(build):
    return {path.relative_to(build): path for path in build.rglob("*") if path.is_file() and not path.is_symlink()}


def output_of(*command, status=0):
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout.strip() + done.stderr.strip()


def test_the_next_release_takes_a_copy_without_uv(host, first):
    foretold = host.release("2", check=True, **GONE)
    result = host.release("2", **GONE)
    build = Path(result.build)
    assert (foretold.build, foretold.reasons, foretold.after) == (result.build, result.reasons, result.packages)
    assert result.packages == {"alpha": "1.0", "beta": "1.0"}
    assert build.parent == host.root / "releases" / "2"
    assert os.readlink(build.parent / "venv") == build.name == first.name
    assert not host.release("2", **GONE).changed
    assert {path.name for path in build.parent.iterdir()} == {"venv", build.name, ".venv.lock"}


def test_a_copy_names_itself_and_needs_no_other(host, first):
    build = Path(host.release("2", **GONE).build)
    names = {path for path, file in files_of(build).items() if os.fsencode(first) in file.read_bytes()}
    assert {path.suffix for path in names} == {".pyc"}
    shutil.rmtree(first.parent)
    assert output_of(build / "bin" / "alpha") == "alpha"
    assert str(build / "bin" / "python") in (build / "bin" / "alpha").read_text()
    activated = f"unset VIRTUAL_ENV; . {build}/bin/activate; echo $VIRTUAL_ENV; command -v alpha"
    assert output_of("bash", "-c", activated).split() == [str(build), str(build / "bin" / "alpha")]
    third = Path(host.release("3", **GONE).build)
    assert output_of(third / "bin" / "alpha") == "alpha", "a copy of a copy"


def test_the_bytecode_of_a_copy_is_valid_and_names_its_sources(host, first):
    build = Path(host.release("2", **GONE).build)
    shutil.rmtree(first.parent)
    loaded = output_of(build / "bin" / "python", "-v", "-c", "import alpha")
    code = next(build.glob("lib/python*/site-packages/alpha/__pycache__/*.pyc"))
    assert f"{code} matches {build}/lib" in loaded
    assert "could not write" not in loaded and "wrote" not in loaded
    trace = output_of(build / "bin" / "python", "-c", "import alpha; alpha.fail()", status=1)
    assert f'File "{build}/lib' in trace
    assert str(first) not in trace


def test_records_have_the_digests_of_the_copys_files(host, first):
    build = Path(host.release("2", **GONE).build)
    digests = 0
    for record in build.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        for line in record.read_text().splitlines():
            name, digest, size = line.rsplit(",", 2)
            if digest:
                content = (record.parent.parent / name).read_bytes()
                value = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={value}", str(len(content))), name
                digests += name.endswith("bin/alpha")
    assert digests == 1
    assert output_of(UV, "pip", "check", "--python", build / "bin" / "python")


def test_a_copy_takes_no_room(host, first):
    files, others = files_of(Path(host.release("2", **GONE).build)), files_of(first)
    assert files.keys() == others.keys()
    own = {str(path) for path, file in files.items() if file.stat().st_ino != others[path].stat().st_ino}
    assert {"bin/alpha", "bin/beta", STAMP} <= own
    assert all(path.startswith("bin/") or path == STAMP or path.endswith("RECORD") for path in own)
    assert all(files[path].stat().st_mode == others[path].stat().st_mode for path in files)


@pytest.mark.parametrize(
    "changes",
    [
        {"additions": ("gunicorn==27.0 --hash=sha256:" + "0" * 64,)},
        {"compile_bytecode": False},
        {"siblings": ""},
        {"siblings": "/nonexistent/*/venv"},
    ],
    ids=str,
)
def test_another_environment_is_no_copy(host, first, changes):
    with pytest.raises(VenvError, match=WANTS_UV):
        host.release("2", **{**GONE, **changes})


def test_another_lock_is_no_copy(host, first):
    host.write_lock(host.wheel("alpha", "2.0"))
    with pytest.raises(VenvError, match=WANTS_UV):
        host.release("2", **GONE)


def test_a_longer_path_is_built(host, first):
    """The kernel cuts the first line of a script off."""
    with pytest.raises(VenvError, match=WANTS_UV):
        host.release("2" * 20, **GONE)


def _edit(build):
    """As an editor does: a new file in the place of the old one."""
    file = next(build.glob("lib/python*/site-packages/alpha/__init__.py"))
    file.unlink()
    file.write_text("raise SystemExit('edited')\n")


def _cut(build):
    """As a power failure does."""
    file = next(build.glob("lib/python*/site-packages/alpha/__pycache__/*.pyc"))
    file.write_bytes(b"")


def _add(build):
    (next(build.glob("lib/python*/site-packages")) / "sitecustomize.py").touch()


def _remove(build):
    next(build.glob("lib/python*/site-packages/beta/__init__.py")).unlink()


def _uninstall(build):
    shutil.rmtree(next(build.glob("lib/python*/site-packages/beta-1.0.dist-info")))


def _unstamp(build):
    (build / STAMP).unlink()


def _open(build):
    (build / "bin").chmod(0o777)


def _move(build):
    build.rename(build.with_name(f"{build.name}.1"))
    link = build.parent / "venv"
    link.unlink()
    link.symlink_to(f"{build.name}.1")


@pytest.mark.parametrize("damage", [_edit, _cut, _add, _remove, _uninstall, _unstamp, _open, _move])
def test_what_is_not_as_it_was_built_is_not_copied(host, first, damage):
    damage(first)
    with pytest.raises(VenvError, match=WANTS_UV):
        host.release("2", **GONE)
    build = Path(host.release("2").build)
    assert output_of(build / "bin" / "alpha") == "alpha"
    assert Path(host.release("3", **GONE).build).exists(), "the second one is whole"


def test_what_is_reinstalled_in_one_stays_as_it_was_in_the_other(host, first):
    build = Path(host.release("2", **GONE).build)
    python = build / "bin" / "python"
    source = ["--offline", "--no-index", "--find-links", host.wheelhouse, "--cache-dir", host.cache]
    host.wheel("beta", "2.0")
    output_of(UV, "pip", "install", *source, "--python", python, "beta==2.0")
    assert host.release("2", check=True).reasons == ["the environment was changed by hand: beta is 2.0, not 1.0"]
    assert output_of(build / "bin" / "beta") == "beta 2.0"
    assert output_of(first / "bin" / "beta") == "beta 1.0"
    assert not host.release("1").changed


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_where_links_are_not_possible_the_environment_is_built(host, first, monkeypatch, number):
    def refuse(*_words, **_names):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    build = Path(host.release("2").build)
    assert output_of(build / "bin" / "alpha") == "alpha"


@pytest.mark.parametrize("part", ["lib", "lib/python*/site-packages/beta"])
def test_a_release_that_is_removed_meanwhile(host, first, monkeypatch, part):
    link, removed = os.link, next(first.glob(part))

    def remove(source, target, **names):
        if removed.exists():
            shutil.rmtree(removed)
        link(source, target, **names)

    monkeypatch.setattr(os, "link", remove)
    build = Path(host.release("2").build)
    assert output_of(build / "bin" / "beta") == "beta 1.0"


def test_a_release_that_is_removed_while_it_is_compared(host, first, monkeypatch):
    walk = os.walk

    def remove(top):
        for entry in walk(top):
            if first.exists() and str(top) == str(first):
                shutil.rmtree(first)
            yield entry

    monkeypatch.setattr(os, "walk", remove)
    with pytest.raises(VenvError, match=WANTS_UV):
        host.release("2", **GONE)


@pytest.mark.parametrize("count", [0, 1, 10])
def test_a_copy_is_whole_or_not_there(host, first, monkeypatch, count):
    link, made = os.link, []

    def interrupt(source, target, **names):
        if len(made) == count:
            raise SystemExit(143)
        made.append(target)
        link(source, target, **names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", interrupt)
        with pytest.raises(SystemExit):
            host.release("2", **GONE)
    assert {path.name for path in (host.root / "releases" / "2").iterdir()} == {".venv.lock"}
    assert host.release("2", **GONE).changed


def test_a_copy_that_was_killed_is_begun_anew(host, first):
    left = host.root / "releases" / "2" / first.name
    shutil.copytree(first, left, symlinks=True)
    (left / STAMP).unlink()
    build = Path(host.release("2", **GONE).build)
    assert build == left
    assert output_of(build / "bin" / "alpha") == "alpha"
