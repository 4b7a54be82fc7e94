"""uv_venv with the real uv: builds, reasons, failures, drift, formats, check mode, pruning, concurrency."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.builds import STAMP, EnvironmentPath
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.environment import VenvError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import Credential
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.settings import EnvironmentSettings, validate
from fixtures.uv_venv.host import UV, Host, Index, umask

pytestmark = pytest.mark.skipif(not os.path.exists(UV), reason="uv is not beside the interpreter")
GUNICORN = f"gunicorn==27.0 --hash=sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What uv learns of the interpreter is learnt once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def host(tmp_path, cache):
    made = Host(tmp_path, cache)
    made.write_lock(made.wheel("alpha", requires=["beta>=1"]), made.wheel("beta"))
    return made


@pytest.fixture
def other_python(tmp_path):
    """A second interpreter at a path of its own."""
    venv.create(tmp_path / "other", symlinks=False)
    return tmp_path / "other" / "bin" / "python"


def output_of(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout.strip()


# -- builds ------------------------------------------------------------------------------------------------------


def test_first_build(host):
    result = host.ensure(cache_dir="")
    build = Path(result.build)
    assert result.changed
    assert result.reasons == [f"there is no environment at {host.link} yet"]
    assert os.readlink(host.link) == build.name == f".orders-{result.fingerprint[:12]}"
    assert result.packages == {"alpha": "1.0", "beta": "1.0"}
    assert result.python_version == ".".join(map(str, sys.version_info[:3]))
    assert result.added == []
    assert output_of(host.link / "bin" / "alpha") == "alpha 1.0"
    # Scripts name the build, so that a program keeps its environment when the link moves on.
    assert str(build / "bin" / "python") in (build / "bin" / "alpha").read_text()
    assert host.beside() == {"orders", build.name}


def test_a_second_run_changes_nothing(host):
    first = host.ensure()
    before = host.snapshot()
    second = host.ensure()
    assert not second.changed
    assert second.reasons == []
    assert (second.build, second.fingerprint, second.packages) == (first.build, first.fingerprint, first.packages)
    assert host.snapshot() == before


def test_where_packages_come_from_is_no_reason(host):
    host.ensure()
    login = Credential("pypi.example.com", "bob", "s3cret")
    index = {"wheelhouse": "", "index_url": "https://pypi.example.com/simple", "credentials": (login,)}
    files = {"cache_dir": "/nonexistent/cache", "ca_bundle": "/nonexistent/ca", "uv": "/bin/false"}
    assert not host.ensure(**index, **files).changed


def test_reasons(host, other_python):
    delta = host.wheel("delta")
    host.ensure()
    host.lock.write_text("# a remark\n" + host.lock.read_text())
    options = {}

    def reasons(**changes):
        options.update(changes)
        result = host.ensure(**options)
        assert result.changed
        assert not host.ensure(**options).changed
        return result.reasons

    assert reasons() == ["the lock file changed"]
    assert reasons(additions=(delta,)) == ["the additions changed"]
    assert reasons(compile_bytecode=True) == ["compile_bytecode changed from false to true"]
    before = os.path.realpath(sys.executable)
    assert reasons(python=other_python) == [f"the interpreter changed from {before} to {other_python.resolve()}"]


def test_a_former_lock_brings_its_build_back_without_uv(host):
    former = host.lock.read_text()
    first = host.ensure()
    host.write_lock(host.wheel("alpha", "2.0"))
    second = host.ensure()
    assert second.packages == {"alpha": "2.0"}
    host.lock.write_text(former)
    gone = {"uv": "/nonexistent/uv", "wheelhouse": "/nonexistent/wheelhouse"}
    predicted = host.ensure(check=True, **gone)
    third = host.ensure(**gone)
    assert (predicted.build, predicted.reasons, predicted.after) == (third.build, third.reasons, third.packages)
    assert third.reasons == ["the lock file changed"]
    assert (third.build, third.packages) == (first.build, first.packages)
    assert os.readlink(host.link) == Path(first.build).name


def test_bytecode_is_compiled(host):
    build = Path(host.ensure(compile_bytecode=True).build)
    assert list(build.glob("lib/python*/site-packages/alpha/__pycache__/*.pyc"))


def test_a_lock_of_nothing(host):
    host.write_lock()
    assert host.ensure().packages == {}


def test_everything_is_readable_whatever_the_umask(host, tmp_path):
    with umask(0o077):
        cache = tmp_path / "cache"
        host.ensure(cache_dir=cache, path=host.venvs / "first")
        # A cache that a strict umask filled before: its files come as hard links.
        for file in cache.rglob("*"):
            file.chmod(0o700 if file.is_dir() else 0o600)
        build = Path(host.ensure(cache_dir=cache, compile_bytecode=True).build)
    modes = {
        path.relative_to(build): stat.S_IMODE(path.lstat().st_mode)
        for path in [build, *build.rglob("*")]
        if not path.is_symlink()
    }
    assert {mode for path, mode in modes.items() if (build / path).is_dir()} == {0o755}
    assert {mode for path, mode in modes.items() if (build / path).is_file()} == {0o644, 0o755}
    assert modes[Path("bin/alpha")] == 0o755
    assert modes[Path(STAMP)] == 0o644
    module = next(build.glob("lib/python*/site-packages/alpha/__init__.py"))
    assert module.stat().st_nlink > 1, "the cache is shared by hard links"


def test_the_hosts_settings_do_not_reach_uv(host, tmp_path, monkeypatch):
    (tmp_path / ".config" / "uv").mkdir(parents=True)
    (tmp_path / ".config" / "uv" / "uv.toml").write_text('index-url = "http://127.0.0.1:9/simple"\n')
    for name, value in {
        "HOME": tmp_path,
        "UV_INDEX_URL": "http://127.0.0.1:9/simple",
        "UV_OFFLINE": "1",
        "UV_NO_BINARY": "1",
        "UV_CACHE_DIR": tmp_path / "leaked",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "VIRTUAL_ENV": tmp_path / "nowhere",
        "PYTHONHOME": tmp_path,
        "NETRC": tmp_path / "netrc",
    }.items():
        monkeypatch.setenv(name, str(value))
    with Index(host.wheelhouse) as index:
        assert host.ensure(wheelhouse="", index_url=index.url).changed
    assert not (tmp_path / "leaked").exists()


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settled(tmp_path_factory, cache):
    """A host with one build, which no failure may change."""
    host = Host(tmp_path_factory.mktemp("settled"), cache)
    host.write_lock(host.wheel("alpha", requires=["beta>=1"]), host.wheel("beta"))
    return host, host.ensure().build


def wrong_hash(host):
    host.write_lock(f"alpha==1.0 --hash=sha256:{'0' * 64}")


def no_such_package(host):
    host.write_lock(f"omega==1.0 --hash=sha256:{'0' * 64}")


def no_such_version(host):
    host.write_lock(f"beta==9.0 --hash=sha256:{'0' * 64}")


def no_wheel(host):
    host.write_lock(host.wheel("native", tag="cp27-cp27m-win32"))


def contradiction(host):
    host.write_lock(host.wheel("beta"), host.wheel("beta", "2.0"))


def unhashed(host):
    host.write_lock(host.wheel("alpha"), "beta==1.0")


def bad_line(host):
    host.write_lock("alpha >>= 1")


def incomplete_lock(host):
    host.write_lock(host.wheel("alpha", "3.0", requires=["beta>=7"]))


def binary_lock(host):
    host.lock.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (wrong_hash, "Wrong hash: the file of alpha 1.0 in the wheelhouse {wheelhouse} is none of those"),
        (no_such_package, "The package omega was not found in the wheelhouse {wheelhouse}"),
        (no_such_version, "There is no beta 9.0 in the wheelhouse {wheelhouse}"),
        (no_wheel, "There is no wheel of native 1.0 for this interpreter ("),
        (contradiction, "packages that exclude each other: Because you require beta==1.0 and beta==2.0"),
        (unhashed, "lock={lock}: these requirements have no hash: beta (line 2)"),
        (bad_line, "lock={lock}: line 1 is not a pinned requirement: 'alpha >>= 1'"),
        (incomplete_lock, "The packages do not fit together: The package `alpha` requires `beta>=7`, but it's not in"),
        (binary_lock, "lock={lock}: it is not a text file in UTF-8"),
    ],
)
def test_a_failed_build_leaves_the_old_one(settled, spoil, sentence):
    host, build = settled
    spoil(host)
    before = {path: look for path, look in host.snapshot().items() if path.startswith(build)}
    with pytest.raises(VenvError) as caught:
        host.ensure()
    assert sentence.format(wheelhouse=host.wheelhouse, lock=host.lock) in str(caught.value).splitlines()[0]
    assert host.beside() == {"orders", Path(build).name}
    assert {path: look for path, look in host.snapshot().items() if path.startswith(build)} == before
    assert output_of(host.link / "bin" / "alpha") == "alpha 1.0"


def test_a_failure_ends_with_uvs_own_words(host):
    wrong_hash(host)
    with pytest.raises(VenvError) as caught:
        host.ensure()
    assert f"Nothing was changed at {host.link}." in str(caught.value)
    assert str(caught.value).splitlines()[-2].strip() == "Computed:"


def test_a_program_that_is_no_uv(host, tmp_path):
    fake = tmp_path / "uv"
    fake.write_text("no program")
    fake.chmod(0o755)
    with pytest.raises(VenvError, match="`uv` can't be started"):
        host.ensure(uv=fake)


def test_a_program_that_is_no_interpreter(host):
    with pytest.raises(VenvError, match="python=/bin/true does not run as a Python interpreter"):
        host.ensure(python="/bin/true")


def test_time_runs_out(host):
    with Index(host.wheelhouse) as index:
        index.go_on.clear()
        start = time.monotonic()
        with pytest.raises(VenvError, match="The build was stopped after timeout=1 seconds"):
            host.ensure(wheelhouse="", index_url=index.url, timeout=1)
        assert time.monotonic() - start < 10
    assert host.beside() == set()
    assert running(host.venvs) == []


def running(text):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(text).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_directory_made_by_hand_is_left_alone(host):
    host.link.mkdir()
    for check in (True, False):
        with pytest.raises(VenvError, match=rf"path={host.link} is a directory.*mv {host.link} {host.link}\.old"):
            host.ensure(check)
    assert host.beside() == {"orders"}


def test_the_cache_must_be_ones_own(host, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(VenvError, match=f"cache_dir={cache} can be written by others .*mode 0777"):
        host.ensure(cache_dir=cache)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": "venvs/orders"}, "path=venvs/orders is not an absolute path"),
        ({"path": "/"}, "path=/ is no path for an environment"),
        ({"keep": 0}, "keep=0 is too small"),
        ({"timeout": 0}, "timeout=0 is too small"),
        ({"extras": ("fast",)}, "extras and groups mean nothing with lock="),
        ({"lock": "/x/other.lock", "lock_format": "uv"}, "uv reads only files named uv.lock"),
        ({"additions": ("gunicorn",)}, "additions: the addition 'gunicorn' is not a pinned requirement"),
        ({"index_url": "https://bob:s3cret@x/simple"}, "index_url has a user name or password in it (https://***@x/"),
        ({"extra_index_urls": ("https://bob:s3cret@x/",)}, "extra_index_urls has a user name or password in it"),
        ({"index_url": "https://[pypi"}, "index_url=https://[pypi is not an http, https or file URL"),
        ({"index_url": "pypi.example.com"}, "index_url=pypi.example.com is not an http, https or file URL"),
        ({"credentials": (Credential("https://x", "a", "b"),)}, "host='https://x' must be a bare host name"),
        ({"credentials": (Credential("x", "a", "b\nmachine y"),)}, "credentials of x: username and password must be"),
    ],
)
def test_options_that_can_not_be_right(changes, words):
    options = {"path": "/x/venv", "python": "/usr/bin/python3", "uv": "/usr/bin/uv", "lock": "/x/r.txt"}
    with pytest.raises(VenvError, match=re.escape(words)) as caught:
        validate(EnvironmentSettings(**{**options, **changes}))
    assert "s3cret" not in str(caught.value)


# -- cut off, drift ----------------------------------------------------------------------------------------------


def test_an_incomplete_build_is_rebuilt(host):
    predicted = Path(host.ensure(check=True).build)
    (predicted / "bin").mkdir(parents=True)
    (predicted / "bin" / "junk").write_text("half")
    (host.venvs / ".orders.tmp-left").mkdir()
    (host.venvs / ".orders.link-1").symlink_to(predicted.name)
    result = host.ensure()
    assert Path(result.build) == predicted
    assert not (predicted / "bin" / "junk").exists()
    assert host.beside() == {"orders", predicted.name}


def drifted(host):
    result = host.ensure()
    assert result.changed
    assert result.packages == {"alpha": "1.0", "beta": "1.0"}
    assert output_of(host.link / "bin" / "alpha") == "alpha 1.0"
    assert not host.ensure().changed
    return result


def test_drift_of_the_link(host):
    build = Path(host.ensure().build)
    shutil.rmtree(build)
    assert drifted(host).reasons == [f"{host.link} points to {build}, which does not exist"]
    host.link.unlink()
    host.link.symlink_to("/usr")
    assert drifted(host).reasons == [f"{host.link} points to /usr, which this module did not build"]


def test_drift_of_the_stamp(host):
    build = Path(host.ensure().build)
    (build / STAMP).unlink()
    result = drifted(host)
    assert result.reasons == [f"the build {build} is not complete"]
    assert result.build != str(build), "the live environment is not built over"


def test_drift_of_the_interpreter(host):
    build = Path(host.ensure().build)
    (build / "bin" / "python").unlink()
    (build / "bin" / "python").symlink_to("/nonexistent/python")
    result = drifted(host)
    assert result.reasons == [
        "the environment's interpreter is now /nonexistent/python; it was built with "
        + os.path.realpath(sys.executable)
    ]
    assert result.build == f"{build}.1"
    assert host.beside() == {"orders", f"{build.name}.1"}, "nobody goes back to a damaged build"


def test_drift_of_the_packages(host):
    site = next(Path(host.ensure().build).glob("lib/python*/site-packages"))
    shutil.rmtree(site / "beta-1.0.dist-info")
    (site / "alpha-1.0.dist-info").rename(site / "alpha-1.1.dist-info")
    (site / "rogue-3.dist-info").mkdir()
    assert drifted(host).reasons == [
        "the environment was changed by hand: alpha is 1.1, not 1.0, beta 1.0 was removed, rogue 3 was installed"
    ]


def test_drift_by_moving(host):
    build = Path(host.ensure().build)
    host.venvs.rename(host.root / "moved")
    host.venvs, host.link = host.root / "moved", host.root / "moved" / "orders"
    assert drifted(host).reasons == [f"the environment was moved here from {build}, and its scripts still name that"]


def test_a_link_in_the_path_does_not_get_into_scripts(host):
    (host.root / "current").symlink_to("venvs")
    result = host.ensure(path=host.root / "current" / "orders")
    assert Path(result.build).parent == host.venvs
    assert result.path == str(host.root / "current" / "orders")


# -- additions ---------------------------------------------------------------------------------------------------


def test_additions_are_for_what_the_lock_lacks(host):
    elsewhere = f"omega==1.0 ; sys_platform == 'win32' --hash=sha256:{'0' * 64}"
    host.write_lock(host.wheel("alpha"), host.wheel("Beta_Two", "1.0"), elsewhere)
    additions = (host.wheel("beta-two", "2.0"), host.wheel("gamma"), host.wheel("omega", "2.0"))
    predicted = host.ensure(check=True, additions=additions)
    result = host.ensure(additions=additions)
    assert result.packages == {"alpha": "1.0", "beta-two": "1.0", "gamma": "1.0", "omega": "2.0"}
    assert result.added == predicted.added == ["gamma", "omega"]
    assert predicted.after == result.packages
    again = host.ensure(additions=additions)
    assert (again.changed, again.added) == (False, ["gamma", "omega"])


def test_an_addition_that_does_not_fit_fails_the_build(host):
    addition = host.wheel("gamma", requires=["beta>=2"])
    with pytest.raises(VenvError, match=r"do not fit together: The package `gamma` requires `beta>=2`, but `1\.0` is"):
        host.ensure(additions=(addition,))
    assert host.beside() == set()


def test_an_addition_with_the_wrong_hash(host):
    host.wheel("gunicorn", "27.0")
    with pytest.raises(VenvError, match=r"Wrong hash: the file of gunicorn 27\.0"):
        host.ensure(additions=(GUNICORN,))


# -- formats, the project ----------------------------------------------------------------------------------------


reads_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="this interpreter has no tomllib")


@reads_toml
def test_pylock(host):
    lock = host.write_pylock(
        'requires-python = ">=3.11"\nextras = ["fast"]\n'
        + host.pylock_package("alpha")
        + host.pylock_package("beta", "marker = \"'fast' in extras\"\n")
        + host.pylock_package("gamma", "marker = \"sys_platform == 'win32'\"\n")
    )
    assert host.ensure(lock=lock).packages == {"alpha": "1.0"}
    result = host.ensure(lock=lock, extras=("fast",))
    assert result.packages == {"alpha": "1.0", "beta": "1.0"}
    assert result.reasons == ["the extras changed from none to fast"]


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="this interpreter has tomllib")
def test_pylock_with_an_old_interpreter(host):
    with pytest.raises(VenvError, match=r"which is 3\.\d+\.\d+: Python 3\.11 is the first that reads TOML"):
        host.ensure(lock=host.write_pylock(host.pylock_package("alpha")))


@reads_toml
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[packages", r"it can't be read with `python`, which is \S+: it is no valid TOML \("),
        ('[[packages]]\nname = "x"\nversion = "1"\nwheels = ["x"]\n', "its tables are not those of a pylock file"),
        ('requires-python = ">=3.99"\n', "it is made for Python >=3.99"),
    ],
)
def test_a_bad_pylock(host, text, words):
    lock = host.write_pylock(text)
    for check in (True, False):
        with pytest.raises(VenvError, match=f"lock={lock}: {words}"):
            host.ensure(check, lock=lock)


def test_uv_lock(host):
    lock = host.write_uv_lock()
    before = host.snapshot()
    predicted = host.ensure(check=True, lock=lock, extras=("fast",), groups=("ops",))
    assert host.snapshot() == before
    result = host.ensure(lock=lock, extras=("fast",), groups=("ops",))
    assert result.packages == predicted.after == {"alpha": "1.0", "beta": "1.0", "delta": "1.0"}
    result = host.ensure(lock=lock)
    assert result.packages == {"alpha": "1.0"}
    assert result.reasons == ["the extras changed from fast to none", "the groups changed from ops to none"]
    (host.app / "pyproject.toml").open("a").write("\n[tool.x]\n")
    assert host.ensure(lock=lock).reasons == ["pyproject.toml changed"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extras": ("nope",)}, "`extras` names 'nope', which the project does not have"),
        ({"groups": ("nope",)}, "`groups` names 'nope', which the project does not have"),
    ],
)
def test_uv_lock_without_the_extra(host, changes, words):
    with pytest.raises(VenvError, match=words):
        host.ensure(lock=host.write_uv_lock(), **changes)


def test_uv_lock_for_another_python(host):
    with pytest.raises(VenvError, match=r"made for Python >=3\.99"):
        host.ensure(lock=host.write_uv_lock(">=3.99"))


def test_uv_lock_that_is_broken_or_alone(host):
    lock = host.write_uv_lock()
    lock.write_text(lock.read_text() + "garbage\n")
    with pytest.raises(VenvError, match=f"The lock {lock} can't be read: Failed to parse `uv.lock`"):
        host.ensure(lock=lock)
    (host.app / "pyproject.toml").unlink()
    with pytest.raises(VenvError, match=r"a uv\.lock needs a pyproject\.toml beside it"):
        host.ensure(lock=lock)


def test_no_project_to_install(host):
    with pytest.raises(VenvError, match=r"install_project needs a pyproject\.toml beside it"):
        host.ensure(install_project=True)


# -- check mode --------------------------------------------------------------------------------------------------


def test_check_mode_predicts_the_run_and_leaves_no_trace(host, monkeypatch, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    def check():
        before = host.snapshot()
        result = host.ensure(check=True)
        assert host.snapshot() == before
        return result

    predicted, real = check(), host.ensure()
    assert predicted.changed
    assert (predicted.build, predicted.fingerprint, predicted.reasons) == (real.build, real.fingerprint, real.reasons)
    assert (predicted.before, predicted.after) == ({}, real.packages)
    assert not check().changed
    host.write_lock(host.wheel("alpha", "2.0"))
    predicted, real = check(), host.ensure()
    assert predicted.reasons == real.reasons == ["the lock file changed"]
    assert predicted.packages == predicted.before == {"alpha": "1.0", "beta": "1.0"}
    assert predicted.after == real.after == {"alpha": "2.0"}
    assert not check().changed


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("python", "python={} does not exist"),
        ("uv", "uv={} does not exist"),
        ("lock", "lock={} does not exist"),
        ("wheelhouse", "wheelhouse={} does not exist"),
        ("ca_bundle", "ca_bundle={} does not exist"),
        ("path", "the folder {} of path={}/venv does not exist"),
    ],
)
def test_a_fresh_host(host, option, words):
    absent = host.root / "absent"
    changes = {option: absent / "venv" if option == "path" else absent}
    before = host.snapshot()
    result = host.ensure(check=True, **changes)
    assert result.changed
    sentence = words.format(absent, absent)
    assert f"{sentence} yet" in result.reasons
    with pytest.raises(VenvError, match=f"{sentence}: "):
        host.ensure(**changes)
    assert host.snapshot() == before


def test_check_mode_refuses_what_a_run_would_refuse(host):
    unhashed(host)
    with pytest.raises(VenvError, match="no hash: beta"):
        host.ensure(check=True)


def test_a_converged_host_needs_no_uv_and_no_wheelhouse(host):
    host.ensure()
    shutil.rmtree(host.wheelhouse)
    assert not host.ensure(uv="/nonexistent/uv").changed


# -- keep --------------------------------------------------------------------------------------------------------


def change(host, version, **options):
    """Another lock, another build; a pause keeps the times of publications apart."""
    host.write_lock(host.wheel("alpha", version))
    time.sleep(0.02)
    return Path(host.ensure(**options).build).name


def test_the_last_builds_stay(host):
    names = [change(host, f"{number}.0") for number in range(1, 5)]
    assert host.beside() == {"orders", *names[-2:]}
    assert change(host, "3.0") == names[2], "back to the one before"
    last = change(host, "5.0")
    assert host.beside() == {"orders", names[2], last}
    last = change(host, "6.0", keep=1)
    assert host.beside() == {"orders", last}


def test_other_environments_are_not_touched(host):
    for name in (".orders-two-3f2a1c9d0b77", ".orders-3f2a1c9d0b77.bak", ".orders-notes", "orders.old"):
        (host.venvs / name).mkdir()
    before = host.beside()
    change(host, "1.0")
    change(host, "2.0", keep=1)
    assert before < host.beside()


SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"


@pytest.fixture
def start():
    """Start programs, wait until they are up, and end them; call with nothing to end them early."""
    processes = []

    def end():
        while processes:
            process = processes.pop()
            process.kill()
            process.communicate()

    def start(*command):
        processes.append(subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE))
        assert processes[-1].stdout.readline() == b"up\n"

    start.end = end
    yield start
    end()


def test_builds_in_use_stay(host, start):
    """By its interpreter's path, a script's first line, and a mapped library, which is what a server leaves of its
    environment after it renamed its process."""
    by_path = change(host, "1.0")
    start(host.venvs / by_path / "bin" / "python", "-c", SLEEP)
    by_script = change(host, "2.0", keep=1)
    script = host.venvs / by_script / "bin" / "sleeper"
    script.write_text(f"#!{host.venvs / by_script}/bin/python\n{SLEEP}")
    script.chmod(0o755)
    start(host.link / "bin" / "sleeper")
    by_map = change(host, "3.0", keep=1)
    library = host.venvs / by_map / "lib" / "mapped.so"
    library.write_bytes(b"\0" * 4096)
    mapper = f"import mmap\nfile = open({str(library)!r}, 'r+b')\nmapped = mmap.mmap(file.fileno(), 0)\nfile.close()\n"
    (host.root / "mapper.py").write_text(mapper + SLEEP)
    start(sys.executable, host.root / "mapper.py")
    last = change(host, "4.0", keep=1)
    assert host.beside() == {"orders", by_path, by_script, by_map, last}
    start.end()
    last = change(host, "5.0", keep=1)
    assert host.beside() == {"orders", last}


def test_what_a_program_started_through_the_link_uses(host, start):
    unused, used = change(host, "1.0"), change(host, "2.0")
    for name, age in ((unused, 1000), (used, 500)):
        os.utime(host.venvs / name / STAMP, (time.time() - age,) * 2)
    start(host.link / "bin" / "python", "-c", SLEEP)
    last = change(host, "3.0", keep=1)
    assert host.beside() == {"orders", used, last}


# -- others at the same time -------------------------------------------------------------------------------------


def test_two_runs_at_once_build_once(host):
    results, failures = [], []

    def run():
        try:
            results.append(host.ensure())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(result.changed for result in results) == [False, True]
    assert results[0].build == results[1].build
    assert len(host.beside()) == 2


def test_the_wait_for_another_run_is_bounded(host):
    with EnvironmentPath(str(host.link)).locked(1):
        start = time.monotonic()
        with pytest.raises(VenvError, match=r"another run has been building .* longer than timeout=1 seconds"):
            host.ensure(timeout=1)
        assert time.monotonic() - start < 5
    assert host.ensure(timeout=30).changed
