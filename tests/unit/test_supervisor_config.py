"""The sections that the role supervisor writes, read back by supervisor's own parser, and what the role refuses."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _supervisor_config as config
from hypothesis import given, settings
from hypothesis import strategies as st
from supervisor import options as supervisor_options
from supervisor.datatypes import RestartUnconditionally

pytestmark = pytest.mark.controller

ROLE = Path(__file__).resolve().parents[2] / "roles" / "supervisor"
SPEC = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
LAUNCHER = f"{sys.executable} -IS {ROLE / 'files' / 'with_environment.py'}"


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch) -> None:
    """supervisor wants the directory of a log to be there."""
    monkeypatch.setattr(config, "LOG_DIRECTORY", str(tmp_path))


def parse(folder: Path, text: str) -> dict[str, Any]:
    """The groups as supervisor reads them."""
    path = folder / "supervisord.conf"
    path.write_text(f"[supervisord]\nnodaemon=true\n{text}", encoding="utf-8")
    options = supervisor_options.ServerOptions()
    options.realize(["-n", "-c", str(path)])
    return {group.name: group for group in options.process_group_configs}


def read_back(folder: Path, lists: dict[str, Any]) -> dict[str, Any]:
    return parse(folder, config.supervisor_sections(lists, LAUNCHER))


def problems(lists: dict[str, Any], taken: tuple[str, ...] = ()) -> list[str]:
    return config.supervisor_problems(lists, taken)


def program(name: str = "mailer", **options: Any) -> dict[str, Any]:
    return {"name": name, "command": "/bin/sleep 1000", **options}


# --- rendering


def test_a_program(tmp_path) -> None:
    (group,) = read_back(tmp_path, {"programs": [program(startsecs=5, exitcodes=[0, 2], autorestart=True)]}).values()
    (process,) = group.process_configs
    assert (process.name, process.command, process.startsecs) == ("mailer", "/bin/sleep 1000", 5)
    assert (process.exitcodes, process.redirect_stderr) == ([0, 2], True)
    assert process.stdout_logfile == f"{tmp_path}/mailer.log"
    assert process.autorestart is RestartUnconditionally


def test_a_pool_has_numbers(tmp_path) -> None:
    pool = program("pool", command="/bin/serve --port 80%(process_num)02d", numprocs=16)
    (group,) = read_back(tmp_path, {"programs": [pool]}).values()
    assert [process.name for process in group.process_configs] == [f"pool_{number:02d}" for number in range(16)]
    assert group.process_configs[7].command == "/bin/serve --port 8007"
    assert group.process_configs[7].stdout_logfile == f"{tmp_path}/pool_07.log"


def test_groups_and_listeners(tmp_path) -> None:
    lists = {
        "programs": [program("a"), program("b", priority=1), program("alone")],
        "fcgi_programs": [program("web", socket="unix:///run/web.sock", socket_mode="0770")],
        "event_listeners": [program("ears", events=["PROCESS_STATE_FATAL", "TICK_60"], buffer_size=50)],
        "groups": [{"name": "both", "programs": ["a", "b"], "priority": 5}],
    }
    groups = read_back(tmp_path, lists)
    assert sorted(groups) == config.supervisor_groups(lists) == ["alone", "both", "ears", "web"]
    assert [process.name for process in sorted(groups["both"].process_configs)] == ["b", "a"]
    assert groups["both"].priority == 5
    assert groups["ears"].buffer_size == 50
    assert len(groups["ears"].pool_events) == 2
    assert groups["ears"].process_configs[0].stdout_logfile is None
    assert groups["web"].socket_config.mode == 0o770
    assert problems(lists) == []


def test_all_options_of_the_spec_are_supervisors(tmp_path) -> None:
    """Each option that the spec lists is written and read, as the sample value that its type allows."""
    samples = {"str": "sample", "int": 7, "bool": True, "dict": {"A": "b"}, "path": "/", "list": ["0"]}
    special = {
        "command": "/bin/true",
        "process_name": "p%(process_num)s",
        "autorestart": "true",
        "exitcodes": [0],
        "stopsignal": "HUP",
        "user": "root",
        "umask": "022",
        "socket": "unix:///run/x.sock",
        "socket_mode": "0700",
        "socket_owner": "root",
        "events": ["TICK_5"],
        "result_handler": "supervisor.dispatchers:default_handler",
        "secrets": {"B": "c"},
        "stdout_logfile": f"{tmp_path}/%(process_num)s.out",
        "stderr_logfile": f"{tmp_path}/%(process_num)s.err",
        "serverurl": "http://127.0.0.1:9001",
    }
    for key, section in (("programs", "p"), ("fcgi_programs", "f"), ("event_listeners", "e")):
        spec = SPEC["options"][f"supervisor_{key}"]["options"]
        entry: dict[str, Any] = {"name": section}
        for name, option in spec.items():
            size = "1MB" if name.endswith("maxbytes") else samples[option["type"]]
            entry.setdefault(name, special.get(name, size))
        if key == "event_listeners":
            del entry["redirect_stderr"]
        (group,) = read_back(tmp_path, {key: [entry]}).values()
        assert len(group.process_configs) == 7
        process = min(group.process_configs, key=lambda process: len(process.name))
        assert (process.name, process.uid, process.stopwaitsecs) in [(f"p{number}", 0, 7) for number in (7, 8, 9)]
        assert process.environment == {"A": "b", "B": "c"}
        # supervisor drops unknown options without a word, so each is looked for in its parser.
        source = Path(supervisor_options.__file__).read_text(encoding="utf-8")
        for name in spec:
            if name not in ("name", "secrets"):
                assert f"'{name}'" in source or name.startswith(("stdout_", "stderr_")), name


def environment_of(process: Any) -> dict[str, str]:
    """What the command has in its environment when supervisord has started it as it is configured."""
    script = "import sys; sys.stdout.buffer.write(open('/proc/self/environ', 'rb').read())"
    words = shlex.split(process.command)
    assert words[-2:] == ["/bin/sleep", "1000"]
    done = subprocess.run(
        [*words[:-2], sys.executable, "-IS", "-c", script],
        env=process.environment,
        capture_output=True,
        check=True,
    )
    return dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)
        | st.text("'\" \\\n\r\t;#%,=(){}$`aü", max_size=12),
        max_size=4,
    )
)
def test_an_environment_is_kept(tmp_path_factory, environment: dict[str, str]) -> None:
    """Whatever is in it, through supervisor's own parser and into a process."""
    lists = {"programs": [program(environment=environment)]}
    assert problems(lists) == []
    (group,) = read_back(tmp_path_factory.mktemp("environment"), lists).values()
    assert environment_of(group.process_configs[0]) == environment


@pytest.mark.parametrize("value", ["plain", "it's", 'say "hi" twice', "50%", "back\\slash", "a,b=c", "%(here)s", "ü"])
def test_what_supervisor_can_hold_needs_no_launcher(tmp_path, value) -> None:
    (group,) = read_back(tmp_path, {"programs": [program(secrets={"A": value})]}).values()
    assert group.process_configs[0].command == "/bin/sleep 1000"
    assert group.process_configs[0].environment == {"A": value}


def test_no_value_shows_in_the_command(tmp_path) -> None:
    """Every user of the host can read the command."""
    (group,) = read_back(tmp_path, {"programs": [program(secrets={"KEY": "two\nlines"})]}).values()
    assert shlex.split(group.process_configs[0].command)[-2:] == ["/bin/sleep", "1000"]
    assert len(shlex.split(group.process_configs[0].command)) == 5


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
    | st.text("%(heres)d \t\"';#=[]\\\n\ra", max_size=12)
)
def test_a_value_is_kept_or_refused(tmp_path_factory, text: str) -> None:
    """What the file can't hold is refused; everything else comes back as it was, but for white space at its ends."""
    lists = {"programs": [program(command=text)]}
    if not problems(lists):
        (group,) = read_back(tmp_path_factory.mktemp("value"), lists).values()
        if "%(here)s" not in text:
            assert group.process_configs[0].command == text.strip()


def test_an_environment_with_most_things(tmp_path) -> None:
    environment = {"A": "50% off, it's 1,2; \u00fc", "B": 'say "hi" twice', "C": "%(process_num)02d", "D": ""}
    lists = {"programs": [program(environment=environment)]}
    assert problems(lists) == []
    (group,) = read_back(tmp_path, lists).values()
    assert group.process_configs[0].environment == environment


def test_a_literal_percent_sign(tmp_path) -> None:
    (group,) = read_back(tmp_path, {"programs": [program(command="/bin/date +%H%M %(program_name)s")]}).values()
    assert group.process_configs[0].command == "/bin/date +%H%M mailer"


# --- what is refused

REFUSED = [
    ({"programs": [program("a b")]}, "'a b': it must be letters"),
    ({"programs": [program("a:b")]}, "'a:b': it must be letters"),
    ({"programs": [program("orders")]}, "'orders' is that of an app"),
    ({"programs": [program("a"), program("a")]}, "'a' is used 2 times"),
    ({"programs": [program("a")], "groups": [{"name": "a", "programs": ["a"]}]}, "'a' is used 2 times"),
    ({"programs": [program("pool", numprocs=2, process_name="p")]}, "numprocs is 2 and process_name is 'p'"),
    (
        {"programs": [program("pool", numprocs=2, stdout_logfile="/var/log/p.log")]},
        "stdout_logfile is '/var/log/p.log'",
    ),
    ({"programs": [program(stopasgroup=True, killasgroup=False)]}, "stopasgroup is true"),
    ({"programs": [program(umask="18")]}, "umask is '18': it must be octal digits in quotes"),
    ({"programs": [program(stdout_logfile_maxbytes="lots")]}, "stdout_logfile_maxbytes is 'lots'"),
    ({"programs": [program(command="/bin/echo ;x")]}, "command: white space before ';' or '#'"),
    ({"programs": [program(command="/bin/echo\nuser=root")]}, "command: no value may hold a line break"),
    ({"programs": [program(command="/bin/x %(nope)s")]}, "%(nope)s is no expansion of supervisor"),
    ({"programs": [program(command="/bin/x %(here)d")]}, "%(here)d is no expansion that supervisor knows as a number"),
    ({"programs": [program(command=" ")]}, "command is empty"),
    ({"programs": [program(environment={"1": "b"})]}, "'1' is no name of an environment variable"),
    ({"programs": [program(environment={"A": "b"}, secrets={"A": "c"})]}, "A is in environment and in secrets"),
    ({"groups": [{"name": "g", "programs": []}]}, "programs is empty"),
    ({"programs": [program("a")], "groups": [{"name": "g", "programs": ["b"]}]}, "there is no b in programs"),
    (
        {"programs": [program("a")], "groups": [{"name": "g", "programs": ["a"]}, {"name": "h", "programs": ["a"]}]},
        "a is in the group h too",
    ),
    (
        {"fcgi_programs": [program("f", socket="unix:///x")], "groups": [{"name": "g", "programs": ["f"]}]},
        "lose their socket in a group",
    ),
    ({"fcgi_programs": [program("f", socket="tcp://*:80")]}, "socket is 'tcp://*:80'"),
    ({"fcgi_programs": [program("f", socket="tcp://h:80", socket_mode="0700")]}, "for a socket unix:///PATH alone"),
    ({"event_listeners": [program("e", events=[])]}, "events is empty"),
    ({"event_listeners": [program("e", events=["TICK_5"], redirect_stderr=True)]}, "redirect_stderr is true"),
    ({"event_listeners": [program("e", events=["TICK_5"], buffer_size=0)]}, "buffer_size is 0"),
]


@pytest.mark.parametrize(("lists", "reason"), REFUSED)
def test_refused_lists(lists, reason) -> None:
    found = problems(lists, taken=("orders",))
    assert any(reason in problem for problem in found), found
    assert all(problem.startswith("supervisor_") for problem in found)


def test_all_that_is_wrong_is_reported() -> None:
    lists = {"programs": [program("a b", umask="9")], "event_listeners": [program("e", events=[], buffer_size=0)]}
    assert len(problems(lists)) == 4
