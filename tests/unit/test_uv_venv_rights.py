"""uv_venv with the real uv: no code of a package runs with the rights of who runs the module."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes import launcher as _launcher
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv import builds as _uv_venv_builds
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.environment import VenvError
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import Credential
from fixtures.uv_venv.host import (
    AS_ROOT,
    BUILD_PYTHON,
    BUILD_USER,
    PYPROJECT,
    UV,
    Host,
    Index,
    digest,
    make_source,
    make_wheel,
    reads_toml,
)

pytestmark = pytest.mark.skipif(not os.path.exists(UV), reason="uv is not beside the interpreter")
builds = pytest.mark.skipif(not reads_toml(), reason="the interpreter of builds has no tomllib")
as_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become an account without rights")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def host(cache):
    """Outside of /tmp, of which a build sees one of its own, and open to the account that builds."""
    root = Path(tempfile.mkdtemp(prefix="uv-venv-test-", dir="/var/lib" if AS_ROOT else None))
    root.chmod(0o755)
    made = Host(root, cache)
    made.write_lock(made.wheel("alpha", requires=["beta>=1"]), made.wheel("beta"))
    yield made
    shutil.rmtree(root)


def output_of(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout.strip()


# -- wheels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_what_stands_in_a_pth_file_does_not_run(host, cached):
    trace = host.root / "trace"
    line = f"import os; open({str(trace)!r}, 'a').write(str(os.getuid()))\n"
    host.write_lock(host.wheel("evil", more={"evil.pth": line}))
    options = {"compile_bytecode": True} if cached else {"compile_bytecode": True, "cache_dir": ""}
    build = Path(host.ensure(**options).build)
    host.ensure(**options)
    host.ensure(check=True, **options)
    assert list(build.glob("lib/python*/site-packages/evil/__pycache__/*.pyc"))
    assert not trace.exists()
    output_of(build / "bin" / "python", "-c", "")
    assert trace.exists(), "the trap does not work"


def test_a_wheel_that_replaces_what_the_interpreter_reads(host):
    """With its own `home`, the interpreter would take its standard library from there, also with -I and -S."""
    host.write_lock(host.wheel("evil", more={"evil-1.0.data/data/pyvenv.cfg": f"home = {host.root}\n"}))
    with pytest.raises(VenvError, match=r"One of the packages replaces the environment's interpreter or its pyvenv"):
        host.ensure()
    assert host.beside() == set()


def test_a_wheel_that_replaces_the_interpreter(host):
    host.write_lock(host.wheel("evil", more={"evil-1.0.data/scripts/python": "#!/bin/sh\n"}))
    with pytest.raises(VenvError, match="reserved name `python`"):
        host.ensure()
    assert host.beside() == set()


def test_an_interpreter_that_was_replaced_is_not_started(host):
    build = Path(host.ensure().build)
    trace = host.root / "trace"
    (build / "bin" / "python").unlink()
    (build / "bin" / "python").write_text(f"#!/bin/sh\ntouch {trace}\nexec {sys.executable} $@\n")
    (build / "bin" / "python").chmod(0o755)
    assert host.ensure().reasons == [
        f"the environment's interpreter is now {build}/bin/python; it was built with {os.path.realpath(sys.executable)}"
    ]
    assert not trace.exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the trap is one for what reads pyvenv.cfg since 3.11")
def test_the_environments_interpreter_is_not_started_later_on(host):
    build = Path(host.ensure().build)
    trace = host.root / "trace"
    library = host.root / "evil" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (library / "encodings").mkdir(parents=True)
    (library / "os.py").touch()
    (library / "encodings" / "__init__.py").write_text(f"import io; io.FileIO({str(trace)!r}, 'w')\n")
    (build / "pyvenv.cfg").write_text(f"home = {host.root}/evil/bin\n")
    assert not host.ensure().changed
    assert not host.ensure(check=True).changed
    assert not trace.exists()
    subprocess.run([build / "bin" / "python", "-I", "-S", "-c", ""], check=False, capture_output=True)
    assert trace.exists(), "the trap does not work"


def test_files_for_other_pythons_are_no_failure(host):
    host.write_lock(host.wheel("old", more={"old/template.py": "print 'two'\n"}))
    build = Path(host.ensure(compile_bytecode=True).build)
    compiled = [path.name.partition(".")[0] for path in build.glob("lib/python*/site-packages/old/__pycache__/*.pyc")]
    assert compiled == ["__init__"]


# -- source distributions ----------------------------------------------------------------------------------------

SOURCE = {
    "pyproject.toml": '[build-system]\nrequires = ["forge>=1"]\nbuild-backend = "forge"\n',
    "PKG-INFO": "Metadata-Version: 2.1\nName: sdisty\nVersion: 1.0\n",
}
# Builds a wheel of the name that the tree has, which says who built it.
FORGE = """
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = {name!r}
    info = name + "-1.0.dist-info"
    with zipfile.ZipFile(directory + "/" + name + "-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(name + ".py", "BUILT_BY = %d" % os.getuid())
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: " + name + "\\nVersion: 1.0\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name + "-1.0-py3-none-any.whl"
"""


@pytest.fixture
def sdist(host):
    """A lock with a package that has no wheel; its back end and what that needs are in the wheelhouse."""
    archive = make_source(host.wheelhouse, "sdisty", "1.0", SOURCE)
    host.write_lock(host.wheel("alpha"), f"sdisty==1.0 --hash=sha256:{digest(archive)}")
    pins = (host.wheel("forge", "1.5", requires=["leaf"], body=FORGE.format(name="sdisty")), host.wheel("leaf"))
    return {"build_requirements": pins, "source_distributions": ("Sdisty",)}


@pytest.mark.parametrize("url", [False, True])
def test_a_source_distribution_is_refused_unless_it_is_named(host, sdist, url):
    if url:
        archive = next(host.wheelhouse.glob("*.tar.gz"))
        host.write_lock(f"sdisty @ {archive.as_uri()} --hash=sha256:{digest(archive)}")
    with pytest.raises(VenvError, match=r"sdisty has only a source distribution in the wheelhouse") as caught:
        host.ensure()
    assert "`source_distributions: [sdisty]`" in str(caught.value).splitlines()[0]
    assert host.beside() == set()


def who_built(result, module):
    python = Path(result.build) / "bin" / "python"
    return int(output_of(python, "-c", f"import {module}; print({module}.BUILT_BY)"))


def builder():
    return pwd.getpwnam(BUILD_USER).pw_uid if AS_ROOT else os.getuid()


@builds
def test_a_source_distribution_is_built_without_rights(host, sdist):
    result = host.build(**sdist)
    assert result.packages == {"alpha": "1.0", "sdisty": "1.0"}
    assert who_built(result, "sdisty") == builder()
    assert host.beside() == {"orders", Path(result.build).name}
    assert not host.build(**sdist).changed


@builds
def test_a_source_distribution_of_an_index(host, sdist):
    with Index(host.wheelhouse, login="bob:s3 cret") as index, Index(host.app) as empty:
        login = (Credential("127.0.0.1", "bob", "s3 cret"),)
        addresses = {"wheelhouse": "", "index_url": index.url, "extra_index_urls": (empty.url,)}
        with pytest.raises(VenvError, match=r"refused access|can't be fetched .*: Unauthorized"):
            host.build(**addresses, **sdist)
        assert host.build(**addresses, credentials=login, **sdist).packages == {"alpha": "1.0", "sdisty": "1.0"}


@builds
def test_a_source_distribution_with_another_hash(host, sdist):
    make_source(host.wheelhouse, "sdisty", "1.0", {**SOURCE, "more": "x"})
    with pytest.raises(VenvError, match=r"^The wheelhouse \S+ has no source distribution of sdisty 1\.0 with a hash"):
        host.build(**sdist)
    assert host.beside() == set()


def test_a_source_distribution_that_the_lock_lacks(host):
    with pytest.raises(VenvError, match="source_distributions names 'nope', which is not in lock="):
        host.ensure(check=True, source_distributions=("nope",))


# -- the project -------------------------------------------------------------------------------------------------


@builds
def test_the_project_is_built_from_a_copy(host):
    host.write_project()
    before = host.snapshot()
    result = host.build(install_project=True)
    assert result.packages == {"alpha": "1.0", "beta": "1.0", "orders-app": "0.1.0"}
    python = Path(result.build) / "bin" / "python"
    assert output_of(python, "-c", "import orders_app; print(orders_app.__file__)").startswith(result.build)
    assert {path: look for path, look in host.snapshot().items() if str(host.app) in path} == {
        path: look for path, look in before.items() if str(host.app) in path
    }
    (host.app / "orders_app.py").write_text("VALUE = 2\n")
    assert host.build(install_project=True).reasons == ["the project's files changed"]
    assert host.build().reasons == ["install_project changed from true to false"]


@builds
def test_an_environment_with_a_project_is_not_copied(host):
    """The project's version may come from its version control, which is not in the fingerprint."""
    host.write_project()
    options = {"install_project": True, "siblings": host.venvs / "*"}
    one, two = (host.build(path=host.venvs / name, **options) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    code = "lib/python*/site-packages/orders_app.py"
    assert len({next(Path(each.build).glob(code)).stat().st_ino for each in (one, two)}) == 2


def test_an_environment_inside_its_project(host):
    host.write_project()
    options = {"install_project": True, "path": host.app / "venv"}
    assert host.build(**options).changed
    assert not host.build(**options).changed
    (host.app / "orders_app.py").write_text("VALUE = 3\n")
    assert host.build(**options).reasons == ["the project's files changed"]


def project(host, *requires, backend="backend"):
    host.write_project()
    text = PYPROJECT.replace("requires = []", f"requires = {json.dumps(requires)}")
    (host.app / "pyproject.toml").write_text(text.replace('"backend"', f'"{backend}"'))


@builds
def test_build_requirements_are_pinned_by_the_lock_or_by_ours(host):
    project(host, "forge >= 1", "own[extra]>0 ; python_version >= '3'", "none; python_version < '3'", backend="forge")
    host.write_lock(host.wheel("alpha"), host.wheel("own"), host.wheel("leaf", "0.1"))
    forge = FORGE.format(name="orders_app").replace("import os", "import os, leaf, own")
    # What the back end needs is not taken from the lock, whose versions are the app's.
    leaf = host.wheel("leaf", "2.0")
    ours = (host.wheel("forge", "1.5", requires=["leaf>=2"], body=forge), leaf, host.wheel("own", "9.0"))
    make_wheel(host.wheelhouse, "forge", "3.0", body="raise RuntimeError('not pinned')")
    result = host.build(install_project=True, build_requirements=ours)
    assert result.packages == {"alpha": "1.0", "leaf": "0.1", "orders-app": "1.0", "own": "1.0"}
    assert who_built(result, "orders_app") == builder()


@builds
@pytest.mark.parametrize(
    ("requires", "sentence"),
    [
        (["maker>=2"], "orders-app can't be built: its build requirement 'maker>=2' is not pinned. The lock does not"),
        (["forge @ https://x/forge.whl"], "its build requirement 'forge @ https://x/forge.whl' is not pinned"),
        (["-r other"], "its build requirement '-r other' is not pinned"),
    ],
)
def test_a_build_requirement_that_nothing_pins(host, requires, sentence):
    project(host, *requires, backend="forge")
    make_wheel(host.wheelhouse, "maker", "2.0")
    for check in (True, False):
        with pytest.raises(VenvError) as caught:
            host.build(check, install_project=True, build_requirements=(host.wheel("forge"),))
        assert sentence in str(caught.value)
        assert "the pinned back ends are forge. Add it to the lock" in str(caught.value)
    assert host.beside() == set()


@builds
def test_what_a_build_requirement_needs_is_not_pinned(host):
    project(host, "forge", backend="forge")
    make_wheel(host.wheelhouse, "leaf", "2.0")
    with pytest.raises(VenvError, match="its build requirements forge need leaf, which is not pinned"):
        host.build(install_project=True, build_requirements=(host.wheel("forge", requires=["leaf"]),))


@builds
def test_a_build_requirement_of_another_version(host):
    project(host, "forge>=2", backend="forge")
    sentence = (
        r"^The build requirements of orders-app do not fit the versions that are pinned: Because you require forge"
    )
    with pytest.raises(VenvError, match=sentence):
        host.build(install_project=True, build_requirements=(host.wheel("forge"),))


@builds
def test_a_build_requirement_that_the_wheelhouse_lacks(host):
    project(host, "forge", backend="forge")
    pin = f"forge==1.0 --hash=sha256:{'0' * 64}"
    with pytest.raises(
        VenvError, match="orders-app has to be built from source, and its build requirement forge was not"
    ):
        host.build(install_project=True, build_requirements=(pin,))


@builds
def test_a_build_requirement_with_another_hash(host):
    project(host, "forge", backend="forge")
    host.wheel("forge")
    with pytest.raises(VenvError, match=r"^Wrong hash: the file of forge 1\.0"):
        host.build(install_project=True, build_requirements=(f"forge==1.0 --hash=sha256:{'0' * 64}",))


@builds
def test_a_back_end_that_asks_for_more(host):
    project(host)
    more = "def get_requires_for_build_wheel(config_settings=None):\n    return ['ninja>=1']\n"
    (host.app / "backend.py").write_text((host.app / "backend.py").read_text() + more)
    with pytest.raises(VenvError, match=r"the back end also needs ninja>=1: add it to build-system\.requires"):
        host.build(install_project=True)


@builds
def test_a_project_that_does_not_build(host):
    project(host)
    (host.app / "backend.py").write_text("raise RuntimeError('broken \\x1b[2J back \\x07end')\n")
    with pytest.raises(VenvError, match=r"could not be built from source(.|\n)*broken  back \\x07end") as caught:
        host.build(install_project=True)
    assert all(character.isprintable() or character == "\n" for character in str(caught.value))


@builds
def test_a_failure_shows_no_secret(host):
    project(host)
    (host.app / "backend.py").write_text("raise RuntimeError('s3 cret at https://bob:other@x, s3%20cret')\n")
    with pytest.raises(VenvError) as caught:
        host.build(install_project=True, credentials=(Credential("x", "bob", "s3 cret"),))
    assert "RuntimeError: ******** at https://***@x, ********" in str(caught.value)


@builds
def test_time_runs_out_for_all_that_a_build_started(host):
    project(host)
    (host.app / "backend.py").write_text("import os, time\nos.fork() or os.setsid()\ntime.sleep(60)\n")
    with pytest.raises(VenvError, match="The build was stopped after timeout=3 seconds"):
        host.build(install_project=True, timeout=3)
    assert host.beside() == set()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(host.venvs) in read(path)]


def read(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# -- what a hostile project gets ---------------------------------------------------------------------------------

HOSTILE = """
import json, os, socket, subprocess, zipfile
REPORT = {}
def attempt(name, action):
    try:
        REPORT[name] = repr(action())
    except Exception as error:
        REPORT[name] = type(error).__name__ + ": " + str(error)

def build_wheel(directory, config_settings=None, metadata_directory=None):
    attempt("uid", os.getresuid)
    attempt("groups", os.getgroups)
    attempt("shadow", lambda: open("/etc/shadow").read())
    attempt("outside", lambda: open(%(open)r + "/written", "w"))
    attempt("beside", lambda: open(%(venvs)r + "/written", "w"))
    attempt("interpreter", lambda: open(os.environ["VIRTUAL_ENV"] + "/bin/tool", "w"))
    attempt("cache", lambda: open(%(cache)r + "/written", "w"))
    attempt("listener", lambda: socket.create_connection(("127.0.0.1", %(port)d), 2))
    attempt("processes", lambda: [name for name in os.listdir("/proc") if name == "%(pid)d"])
    subprocess.Popen(["sleep", "300.25"], start_new_session=True)
    with zipfile.ZipFile(directory + "/orders_app-1.0-py3-none-any.whl", "w") as wheel:
        info = "orders_app-1.0.dist-info"
        wheel.writestr("orders_app.py", "REPORT = " + repr(json.dumps(REPORT)))
        wheel.writestr("orders_app.pth", "import os; open(%(trace)r, 'w')\\n")
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: orders-app\\nVersion: 1.0\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
"""


@builds
@as_root
def test_a_hostile_project_gets_nothing(host):
    project(host)
    (host.root / "open").mkdir()
    (host.root / "open").chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        values = {
            "open": str(host.root / "open"),
            "venvs": str(host.venvs),
            "cache": str(host.root / "cache"),
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
            "trace": str(host.root / "trace"),
        }
        (host.app / "backend.py").write_text(HOSTILE % values)
        (host.root / "cache").mkdir()
        result = host.build(install_project=True, compile_bytecode=True, cache_dir=host.root / "cache")
    assert not (host.root / "trace").exists(), "the wheel's .pth file ran"
    assert list((host.root / "open").iterdir()) == []
    text = next(Path(result.build).glob("lib/python*/site-packages/orders_app.py")).read_text()
    report = json.loads(eval(text.partition(" = ")[2]))
    uid = pwd.getpwnam(BUILD_USER).pw_uid
    assert report.pop("uid") == str((uid, uid, uid))
    assert report.pop("groups") == str([pwd.getpwnam(BUILD_USER).pw_gid])
    assert report.pop("processes") == "[]"
    assert report.pop("listener").endswith("Network is unreachable")
    assert report.pop("outside").startswith("OSError: [Errno 30] Read-only file system")
    assert {name for name, words in report.items() if "[Errno 13]" not in words and "[Errno 30]" not in words} == set()
    assert set(report) == {"shadow", "beside", "interpreter", "cache"}
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if "300.25" in read(path)]


@builds
@as_root
def test_a_host_without_namespaces_is_named(host, monkeypatch):
    """The account has no rights all the same."""
    project(host)
    launcher = host.root / "launch.py"
    launcher.write_text(
        Path(_launcher.__file__).read_text().replace("if _libc.unshare", "return False\n    if _libc.unshare")
    )
    result = host.ensure(install_project=True, python=BUILD_PYTHON, launcher=launcher, build_user=BUILD_USER)
    assert [line for line in result.warnings if "orders-app was built with a network" in line] == result.warnings != []


WHEEL_IN = "directory + '/orders_app-1.0-py3-none-any.whl'"


@builds
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", "the back end left no file instead of one wheel"),
        (f"os.symlink('/etc/passwd', {WHEEL_IN})", "Too many levels of symbolic links"),
        (f"os.mkfifo({WHEEL_IN})", "is not a file of the account that built it"),
        (f"open('x', 'w').close(); os.link('x', {WHEEL_IN})", "is not a file of the account that built it"),
        (f"open({WHEEL_IN}, 'w').truncate(2**30)", "has 1073741824 bytes, more than 536870912"),
        (f"open({WHEEL_IN}, 'w').write('x')", "File is not a zip file"),
        (f"zipfile.ZipFile({WHEEL_IN}, 'w').writestr('../../evil', '')", "'../../evil' in it leads out"),
        ("os.rename(directory, directory + '2'); os.symlink('/etc', directory)", "Not a directory"),
    ],
)
def test_a_wheel_is_not_trusted(host, code, reason):
    project(host)
    (host.app / "backend.py").write_text(f"import os, zipfile\ndef build_wheel(directory):\n    {code}\n")
    with pytest.raises(VenvError, match="orders-app could not be built from source") as caught:
        host.build(install_project=True)
    assert "its wheel is refused: " in str(caught.value)
    assert reason in str(caught.value)
    assert host.beside() == set()


@builds
def test_a_wheel_of_another_package(host, sdist):
    pins = (host.wheel("forge", "1.5", body=FORGE.format(name="alpha")),)
    with pytest.raises(VenvError, match=r"alpha-1\.0-py3-none-any\.whl is not a wheel of sdisty"):
        host.build(**{**sdist, "build_requirements": pins})


@builds
@as_root
def test_root_builds_nothing_by_himself(host):
    project(host)
    with pytest.raises(VenvError, match=r"orders-app has to be built from source, .* and this runs as root: give"):
        host.ensure(install_project=True, python=BUILD_PYTHON)
    with pytest.raises(VenvError, match="build_user=nobody-here does not exist"):
        host.ensure(install_project=True, python=BUILD_PYTHON, launcher="/bin/true", build_user="nobody-here")
    with pytest.raises(VenvError, match="build_user=root is root: name an account without rights"):
        host.ensure(install_project=True, python=BUILD_PYTHON, launcher="/bin/true", build_user="root")
    with pytest.raises(VenvError, match="launcher=/nonexistent does not exist"):
        host.ensure(install_project=True, python=BUILD_PYTHON, launcher="/nonexistent", build_user="nobody")


# -- who may use it ----------------------------------------------------------------------------------------------


@pytest.fixture
def group():
    """Where it is possible, another one than files get by themselves."""
    return grp.getgrgid(1 if AS_ROOT else os.getgroups()[0]).gr_name


def access(path):
    status = os.stat(path)
    return stat.S_IMODE(status.st_mode), grp.getgrgid(status.st_gid).gr_name


def test_the_group_is_not_part_of_the_fingerprint(host, group):
    build = Path(host.ensure().build)
    assert access(build)[0] == 0o755
    before = (build / "bin").stat()
    reason = [f"the environment's directory was not open to group {group}, and to nobody else"]
    assert host.ensure(check=True, group=group).reasons == reason
    assert access(build)[0] == 0o755
    result = host.ensure(group=group)
    assert (result.changed, result.reasons, result.build) == (True, reason, str(build))
    assert access(build) == (0o750, group)
    assert not host.ensure(group=group).changed
    build.chmod(0o755)
    assert host.ensure(group=group).changed
    assert access(build) == (0o750, group)
    assert (build / "bin").stat() == before
    assert host.ensure().reasons == ["the environment's directory was not open to everybody, and to nobody else"]
    assert access(build)[0] == 0o755


def test_a_build_is_open_to_its_group_before_it_is_published(host, group, monkeypatch):
    seen = []
    publish = _uv_venv_builds.EnvironmentPath.publish
    monkeypatch.setattr(
        _uv_venv_builds.EnvironmentPath,
        "publish",
        lambda place, build: (seen.append(access(build)), publish(place, build))[1],
    )
    host.ensure(group=group)
    assert seen == [(0o750, group)]


def test_a_group_that_is_not_there_yet(host):
    host.ensure()
    assert host.ensure(check=True, group="nobodys").changed
    with pytest.raises(VenvError, match="group=nobodys does not exist: create it"):
        host.ensure(group="nobodys")
