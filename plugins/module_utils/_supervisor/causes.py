# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is known of a process that is not well to the likely cause and its fix. Looks at nothing by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple


def no_holder(_port: int) -> str:
    return ""


@dataclass(frozen=True)
class Evidence:
    """What is known of one process, or of supervisord itself. What is not known stays empty."""

    name: str
    # Whether it runs, though it is not well.
    up: bool = False
    spawn_error: str = ""
    # How it ended since it was last started on request, the newest last, such as "exit status 3".
    endings: Sequence[str] = ()
    # The ends of its stderr and stdout logs.
    logs: Sequence[Sequence[str]] = ()
    log_paths: Sequence[str] = ()
    # The kernel's lines about its processes.
    kernel: Sequence[str] = ()
    # Processes that live on outside of supervisord with its name in their environment.
    strays: Sequence[int] = ()
    # Only looked at, never shown: it may hold secrets.
    command: str = field(default="", repr=False)
    user: str = ""
    health: str = ""
    # What supervisor says of its configuration, and systemd of supervisord's unit.
    configuration: str = ""
    unit: str = ""
    # Who listens on a port: " by process 812 (python3) of user root", or nothing.
    holder: Callable[[int], str] = no_holder


class Rule(NamedTuple):
    """A symptom in one channel; {fields} of cause and fix are the pattern's groups and the facts of _facts."""

    symptom: str
    channel: str
    pattern: str
    cause: str
    fix: str


# The channels, from the strongest evidence to the weakest. See _channels for what is in them.
CHANNELS = ("spawn", "configuration", "kernel", "strays", "log", "command", "ending", "health", "unit")

# Words of the tables, for what stands in them more than once.
_SHARED = {
    "PYTHON_ERROR": r"[A-Za-z_][\w.]*(?::[^\n]*)?",
    "FREE_MEMORY": "Give the host or its control group more memory, run fewer workers, or find what in the app grows "
    "(Gunicorn's max_requests replaces workers before they do).",
    "GRANT_IT": "Give the user the right to it and to enter the directories above it, or correct the path.",
    "READ_LOG": "Read the end of its log, or run its command by hand as {user}.",
}


def _rules(table: str) -> list[Rule]:
    """Lines of channel, symptom: pattern, and indented below them the cause and, behind an arrow, the fix."""
    for word, text in _SHARED.items():
        table = table.replace(word, text)
    rules: list[Rule] = []
    for heads, text in re.findall(r"((?:^[a-z].*\n)+)((?:^ .*\n)+)", table.replace("\\\n    ", ""), re.MULTILINE):
        cause, fix = " ".join(text.split()).split(" -> ")
        for head in heads.splitlines():
            kind, _colon, pattern = head.partition(": ")
            channel, symptom = kind.split()
            rules.append(Rule(symptom, channel, pattern, cause, fix))
    return rules


# What names a cause. Where a log shows more than one, the last one is reported: what comes after a cause is its result
# only if it is among GENERAL_RULES.
RULES = _rules(r"""
# supervisord could not start it
spawn command: can't find command ['\"](?P<path>[^'\"]+)
    There is no command {path}. -> Install what brings {path} (an app's environment may have to be built again), or
    correct command= of the program. A name without a slash is looked for in the PATH of supervisord.
spawn command: command at ['\"](?P<path>[^'\"]+)['\"] is a directory
    The command {path} is a directory. -> Name the program inside of it in command=.
spawn command: command at ['\"](?P<path>[^'\"]+)['\"] is not executable
    The command {path} is not executable. -> Make it so with: chmod +x {path}. For a script without a first line #!,
    name its interpreter in command=.
spawn permission: no permission to run command ['\"](?P<path>[^'\"]+)
    supervisord's own user may not run {path}. -> Let that user read and execute the file and enter the directories
    above it, or run supervisord as root.
spawn files: too many open files to spawn
    supervisord has too many open files to start {name}. -> Raise LimitNOFILE of supervisord's unit
    (supervisord_unit_limit_nofile) and restart supervisord.
spawn processes: Too many processes in process table
    The limit of processes of supervisord's user, or of the host, is reached. -> Find what starts so many (ps -eo user=
    | sort | uniq -c), or raise LimitNPROC and TasksMax of supervisord's unit.
spawn disk: making dispatchers for .*: (?:ENOSPC|EDQUOT)
    No space is left for the log {log_paths}. -> Free some space on that file system.
spawn permission: making dispatchers for .*: (?P<code>E\w+)
    supervisord can't open the log {log_paths} ({code}: {code_meaning}). -> Create the directory of the log, and let
    supervisord's user write to the log and its directory.
spawn memory: during fork for .*: ENOMEM
    There is no memory left to start {name}. -> FREE_MEMORY
spawn configuration: can't parse command|command is empty
    The program's command= can't be read as a command line: quotes are open, or it is empty. -> Correct command= of the
    program.
# supervisor's configuration
configuration user: Invalid user (?:name|id) (?P<who>[^\s']+)
    There is no user {who}, whom a program's user= names. -> Create the user {who}, or correct user=. Until then
    supervisord refuses all of its configuration.
configuration directory: The directory named as part of the path (?P<path>\S+) does not exist
    The directory of the log {path} does not exist. -> Create the directory, or correct the path.
configuration configuration: for '(?P<option>[^']+)' contains names \((?P<names>[^)]*)\) which cannot be expanded
    The option {option} uses a name in %(...)s that supervisor does not know: {names}. -> Correct the name, or write a
    literal percent sign as %%.
configuration configuration: program section (?P<section>\S+) does not specify a command
    [{section}] has no command=. -> Give it one, or remove the section.
configuration port: Another program is already listening
    Another program, maybe a second supervisord, listens where supervisord's HTTP server wants to. -> Look for it with:
    pgrep -a supervisord. End it, or change the address.
# the kernel
kernel memory: Memory cgroup out of memory: Killed process (?P<pid>\d+) \((?P<comm>[^)]*)\)(?:.*anon-rss:(?P<kb>\d+)kB)?
    Out of memory: the kernel killed process {pid} ({comm}) of {name}, because its control group reached its
    limit{used}. -> Raise the limit (MemoryMax of supervisord's unit, or that of the container), run fewer workers, or
    find what in the app grows.
kernel memory: Out of memory: Killed process (?P<pid>\d+) \((?P<comm>[^)]*)\)(?:.*anon-rss:(?P<kb>\d+)kB)?
    Out of memory: the kernel killed process {pid} ({comm}) of {name}, because the host had none left{used}. ->
    FREE_MEMORY
# it left supervisord
strays daemon: exit status 0\b.*; (?P<pids>process.*)
    {name} puts itself into the background (it daemonizes): what supervisord started ended with status 0, and {pids}
    lives on where supervisord can't watch, stop or restart it. -> Keep it in the foreground: Gunicorn without daemon
    (-D), nginx with 'daemon off;', others by their own option for it. Then end {pids}, and start {name} again.
# supervisor, in the program's own log
log user: couldn't setuid to (?P<uid>\d+): Can't find (?:user\S+|uid) (?P<who>\S+)
    There is no user with the id {uid} any more, as whom {name} is to run. -> Create the user again, or correct user= of
    the program, and restart supervisord's group.
log user: couldn't setuid to (?P<uid>\d+): Can't drop privilege as nonroot user
    {name} is to run as {user}, and supervisord, which does not run as root, can't change users. -> Run supervisord as
    root, or remove user= of the program.
log user: couldn't setuid to (?P<uid>\d+): (?P<error>.+)
    supervisord could not become {user} for {name}: {error}. -> Check user= of the program, and that supervisord's unit
    lets it change users.
log directory: couldn't chdir to (?P<path>.+): (?P<code>ENOENT|ENOTDIR)
    There is no directory {path}, where {name} is to start. -> Create it, or correct directory= of the program.
log permission: couldn't chdir to (?P<path>.+): (?P<code>E\w+)
    {user_begin} may not enter the directory {path}. -> Let the user enter it and all directories above it, or correct
    directory= of the program.
log command: couldn't exec (?P<path>.+): ENOENT
    {path} is there, and the interpreter that its first line (#!) names is not. -> Correct that line, install the
    interpreter, or build the environment again that the script belongs to.
log command: couldn't exec (?P<path>.+): ENOEXEC
    {path} is no program for this kind of machine, nor a script with a first line #!. -> Give the script such a line, or
    install the program for this machine.
log permission: couldn't exec (?P<path>.+): (?P<code>E\w+)
    {user_begin} may not run {path} ({code}). -> Let the user execute the file and enter the directories above it; the
    file system may be mounted noexec.
# a shell
log command: (?:^|: )(?:exec: )?(?P<path>[^\s:]+): \
    (?:not found|command not found|cannot execute: required file not found)$
    There is no command {path}, or the interpreter that its first line (#!) names is missing. -> Install what brings
    {path}, build its environment again, or correct the path in the script that runs it.
log command: ^\S+: (?:line )?\d+: (?:exec: )?(?P<path>/[^\s:]+): (?:cannot execute: )?No such file or directory$
    There is no {path}, which a shell script of {name} is to run. -> Install what brings it, build its environment
    again, or correct the path in the script.
# imports
log module: class uri '(?P<value>[^']+)' invalid or not found(?:.*\n){1,60}?\
    ModuleNotFoundError: No module named '(?P<module>[^']+)'
    Gunicorn's worker class {value} needs the module {module}, which is not in the environment. -> Add the package that
    brings {module} to the app's lock file, or correct worker_class.
log module: Could not import module "(?P<module>[^"]+)"
    There is no module {module}, the app itself. -> Correct the module in app (MODULE:ATTRIBUTE), or the directory that
    it is imported from (app_dir).
log module: Failed to read config file: (?P<path>.+)\n(?:.*\n){1,60}?(?P<error>(?:\w+Error)(?::.*)?)$
    Gunicorn can't read its configuration {path}: {error}. -> Correct the file.
log module:   File "<frozen importlib\._bootstrap>".*\nModuleNotFoundError: No module named \'(?P<module>[^\']+)\'
    There is no module {module}, the app itself. -> Correct the module in app (MODULE:ATTRIBUTE), or the directory that
    it is imported from (app_dir).
log module:   File "(?P<path>[^"]*/(?P<package>\w+)/[^"]*)", line (?P<line>\d+).*\n(?:    .*\n)*\
    ModuleNotFoundError: No module named '(?P<module>(?P=package)(?:\.[\w.]+)?)'
    {path} imports {module} in line {line}, and the app's own package {package} has no such module. -> Correct the
    import, or add the missing file to the release.
log module: ModuleNotFoundError: No module named '(?P<module>[^']+)'
    The Python module {module} is missing: a dependency that is not in the app's lock file. -> Add the package that
    brings {module} to the project's dependencies, lock again and deploy. If {module} is the app's own, correct the
    import.
log attribute: Failed to find attribute '(?P<attribute>[^']+)' in '(?P<module>[^']+)'
log attribute: Attribute "(?P<attribute>[^"]+)" not found in module "(?P<module>[^"]+)"
    The module {module} has no attribute {attribute}. -> Correct the part after the colon in app (MODULE:ATTRIBUTE).
log attribute: (?P<error>Import string .* must be in format .*|Failed to parse .* as an attribute name.*|\
    Failed to find application object.*|Application object must be callable)
    What names the app is wrong: {error}. -> Correct app; it must be MODULE:ATTRIBUTE, such as orders.main:app, and the
    attribute must be the app.
log attribute: ImportError: cannot import name '(?P<attribute>[^']+)' from '(?P<module>[^']+)'
    The module {module} has no {attribute}, which another one imports from it. -> Correct the import, or lock the
    version of the package that has it.
# ports and sockets
log port: connection to \('(?P<host>[^']+)', (?P<port>\d+).*\) failed: \[Errno 98\] Address already in use
log port: \[Errno 98\] error while attempting to bind on address \('(?P<host>[^']+)', (?P<port>\d+)
log port: bind\(\) to \S*?:(?P<port>\d+) failed \(98:
    Port {port}{of_host} is in use{holder}. -> See who listens with: ss -ltnp 'sport = :{port}'. Stop it, or bind {name}
    to another port.
log socket: \[Errno 98\] Address '(?P<path>/[^']+)' is already in use
log socket: '(?P<path>[^']+)' is not a socket
    {path}, where {name} wants its Unix socket, is a file that is no socket. -> Remove {path}, or set another bind.
log socket: connection to (?P<path>/.+) failed: \[Errno (?:1|13|30)\]
    {user_begin} may not create the Unix socket {path}, or replace the one that another user left there. -> Let the user
    write to the directory, and remove {path} if it is there and another user's; or set another bind.
log socket: connection to (?P<path>/.+) failed: \[Errno 2\]
    The directory of the Unix socket {path} does not exist. -> Create it at every boot (systemd-tmpfiles --create, if
    /etc/tmpfiles.d names it), or set another bind.
log socket: create_unix_server(?:.*\n){1,12}?PermissionError: \[Errno 13\]
    {user_begin} may not create the Unix socket of {name} (uds), or replace the one that another user left there. -> Let
    the user write to the socket's directory, and remove the socket if it is another user's.
log socket: create_unix_server(?:.*\n){1,12}?FileNotFoundError: \[Errno 2\]
    The directory of the Unix socket of {name} (uds) does not exist. -> Create it at every boot (systemd-tmpfiles
    --create, if /etc/tmpfiles.d names it), or set another one.
log port: connection to \('(?P<host>[^']+)', (?P<port>\d+).*\) failed: \[Errno 13\]
log port: \[Errno 13\] error while attempting to bind on address \('(?P<host>[^']+)', (?P<port>\d+)
    {user_begin} may not listen on port {port}: ports below 1024 are root's. -> Bind to a port from 1024 on and let
    nginx answer on the low one.
log port: ^ERROR: +\[Errno 13\] Permission denied$
    {user_begin} may not listen where {name} wants to: the port is below 1024, or the socket's directory is not the
    user's. -> Let the user write to the socket's directory, or bind to a port from 1024 on.
log address: connection to \('(?P<host>[^']+)'.*\) failed: \[Errno 99\]
log address: \[Errno 99\] error while attempting to bind on address \('(?P<host>[^']+)'
    {host} is no address of this host. -> Correct bind; 0.0.0.0 means all addresses, 127.0.0.1 this host alone.
log port: \[Errno 98\] Address already in use|Address already in use
    Another process has the port or the Unix socket that {name} wants, or a server that was killed left its socket
    behind. -> See who listens with: ss -lxtnp. Stop it, or remove the socket if nobody listens there.
# files
log disk: \[Errno (?:28|122)\] [^:\n]*(?:: '(?P<path>[^']+)')?|No space left on device
    No space is left on a file system that {name} writes to{at_path}. -> Free some space: df -h and df -i show which one
    is full.
log files: \[Errno 24\]|Too many open files
    {name} has as many open files and connections as it may. -> Raise LimitNOFILE of supervisord's unit
    (supervisord_unit_limit_nofile) and restart supervisord, or find what the app does not close: ls -l /proc/PID/fd.
log permission: '(?P<path>[^']+)' isn't writable \[FileNotFoundError
    The directory of {path} does not exist. -> Create it, or correct the path.
log permission: '(?P<path>[^']+)' isn't writable
    {user_begin} may not write to {path}. -> Give the file and its directory to the user, or correct the path.
log permission: \[Errno 30\] Read-only file system(?:: '(?P<path>[^']+)')?
    {name} wants to write where nothing can be written{at_path}: the file system is read-only, or the sandbox of
    supervisord's unit makes it so. -> Write elsewhere, or name the directory in ReadWritePaths of supervisord's unit.
log permission: (?<!Control server error: )\[Errno 13\] Permission denied: '(?P<path>[^']+)'
    {user_begin} may not read or write {path}. -> GRANT_IT
log permission: : (?:exec: |cannot (?:create|open) )?(?P<path>/[^\s:\"]+): (?:cannot execute: )?Permission denied
    {user_begin} may not open or run {path}. -> GRANT_IT
log permission: open\(\) \"(?P<path>[^\"]+)\" failed \(13:
    {user_begin} may not open {path}. -> GRANT_IT
# configuration of the servers
log configuration: Invalid value for '(?P<option>[^']+)': (?P<error>.+)
    Uvicorn refuses the option {option}: {error}. -> Correct the option.
log configuration: ^Invalid value for (?P<option>\w+): (?P<value>.*)
    Gunicorn refuses the setting {option}: {value}. -> Correct the setting {option}.
log configuration: No such option:? '?(?P<option>[\w-]+)
    Uvicorn knows no option {option}. -> Correct its name, or remove it.
log configuration: gunicorn: error: (?P<error>.+)
    Gunicorn refuses its command line: {error}. -> Correct the option in command= of the program.
log configuration: ^Error: '(?P<path>[^']+)' doesn't exist
    There is no file {path}, which is to be Gunicorn's configuration. -> Create it, or correct --config.
log configuration: class uri '(?P<value>[^']+)' invalid or not found
    Gunicorn knows no worker class {value}. -> Correct worker_class: uvicorn_worker.UvicornWorker needs the package
    uvicorn-worker, and eventlet is gone since Gunicorn 26.
log user: ^Error: No such (?P<kind>user|group): '(?P<who>[^']+)'
    There is no {kind} {who}, as which Gunicorn is to run. -> Create it, or correct Gunicorn's setting {kind}.
log directory: ^Error: can't chdir to '(?P<path>[^']+)'
    Gunicorn can't enter the directory {path} (chdir): it is not there, or {user} may not. -> Create it, give the user
    the right to it, or correct chdir.
# memory and time
log memory: ^MemoryError\b|\[Errno 12\] Cannot allocate memory|: Cannot allocate memory
    Out of memory: {name} asked for more memory than it could get. -> FREE_MEMORY
log memory: Worker \(pid:(?P<pid>\d+)\) was sent SIGKILL! Perhaps out of memory\?
    Something killed Gunicorn's worker {pid} with SIGKILL, as the kernel does when memory runs out. -> Look for 'Out of
    memory' in: journalctl -k. If it is there, give more memory or run fewer workers; if not, find who sent the signal.
log timeout: WORKER TIMEOUT \(pid:(?P<pid>\d+)\)
    Gunicorn's worker {pid} gave no sign of life within Gunicorn's timeout: a call in the app blocks it. -> Find the
    call that blocks (a slow query, a lock, time.sleep in an async function) and give it a limit of its own, or raise
    Gunicorn's timeout.
# the command itself
command daemon: ^exit status 0\b.*; .*\bgunicorn\b.* (?:-D|--daemon)\b
    {name} runs Gunicorn with the option daemon, which puts it into the background, where supervisord can't watch it. ->
    Remove -D or --daemon from command= of the program.
command daemon: ^exit status 0\b.*; (?:\S*/)?nginx\b(?!.*daemon off)
    nginx puts itself into the background, where supervisord can't watch it. -> Add -g 'daemon off;' to command= of the
    program.
""")

# What shows that it failed, and only little of why: looked at in this order when no rule above applies.
GENERAL_RULES = _rules(r"""
spawn start: ^(?!Exited too quickly|Bad exit code)(?P<error>.+)
    supervisord could not start it: {error}. -> Correct what supervisord names; see its own log for more.
configuration configuration: (?:^|Error: )(?P<error>[^\n]+)
    supervisor refuses its configuration: {error}. -> Correct the file that it names.
log startup: ^(?P<error>PYTHON_ERROR)\n\n?.*Application startup failed
log startup: ASGI lifespan startup failed: .*\n(?:[ \t].*\n)*(?P<error>PYTHON_ERROR)$
    The app's startup (lifespan) failed: {error}. -> Correct what the error names, such as a database or a variable that
    the app needs at its start.
log startup: Application startup failed|ASGI lifespan startup failed
    The app's startup (lifespan) failed. -> See its log for the reason.
log error: Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(?P<error>PYTHON_ERROR)$
    A Python error: {error}. -> The lines above the error in the log show where in the app it was raised.
log boot: Reason: (?P<error>Worker failed to boot|App failed to load)
    Gunicorn gave up, since its workers can't start the app ({error}). -> The log above that line shows why. To see it
    at once, run the server's check: --check-config.
strays leftover: (?P<pids>process.*)
    What supervisord started ended, and {pids} of it lives on outside of supervisord, maybe holding its port or socket.
    -> End {pids}, then start {name} again.
ending command: exit status 127$
    A command that it runs was not found (status 127). -> Check the paths in command=, and in the script that it runs.
ending command: exit status 126$
    A command that it runs may not be executed (status 126). -> Check the rights of the paths in command=, and in the
    script that it runs.
ending killed: terminated by SIGKILL$
    Something killed it with SIGKILL: the kernel does so when memory runs out, and so does kill -9. -> Look for 'Out of
    memory' in: journalctl -k.
ending crash: terminated by (?P<signal>SIG(?:SEGV|BUS|ILL|FPE|ABRT))
    It crashed ({signal}): a fault in native code, such as a compiled Python package. -> See coredumpctl and journalctl
    -k, and try another version of the package that was changed last.
ending ended: exit status 0$
    It ended by itself with status 0, too early for supervisord: its work was done within startsecs, or it went into the
    background (daemonized), where supervisord can't watch it. -> Keep a server in the foreground. For a job that may
    end so soon, set startsecs=0 and autorestart=false.
ending ended: (?P<how>(?:exit|terminated).*)$
    It ended ({how}) and its log does not say why in words that are known here. -> READ_LOG
spawn ended: ^(?P<error>Exited too quickly|Bad exit code.*)
    It ended by itself ({error}) and its log does not say why in words that are known here. -> READ_LOG
health health: no answer.*(?:[Cc]onnection refused|No such file)
    It runs, and nobody listens where its health is asked for: it is still starting, or bound to another address. ->
    Wait for its start, or compare its bind with where it is asked.
health health: no answer.*[Pp]ermission denied
    The Unix socket may not be opened by the one who asks for the health. -> Ask as root, or check the rights of the
    socket and its directory.
health health: no answer
    It accepts connections and does not answer in time: all of its workers are busy or blocked. -> Find the call that
    blocks (a slow query, a lock, time.sleep in an async function), or run more workers.
health health: ^(?P<status>404|405)\b
    The app runs and knows no such path for its health ({status}). -> Set the app's health_path to one that it answers.
health health: ^(?P<status>\d+)\b
    The app runs and says itself that it is not well (status {status}). -> See its log for the reason; if this answer is
    right, set the app's health_status.
unit supervisord: ShuttingDown|ConnectionLost
    supervisord is stopping or restarting right now. -> Look again in a moment.
unit supervisord: NoAnswer
    supervisord is there and does not answer: it hangs, or the host is overloaded. -> Look at the host's load with top.
    If supervisord alone hangs: systemctl restart supervisord, which restarts all programs.
unit supervisord: LoadState=not-found
    supervisord is not installed as a service of this host: there is no unit supervisord. -> Run the playbook
    asgiops.fastapi_host.site for the host.
unit supervisord: ActiveState=(?:failed|activating)
    The unit supervisord can't start, or ends again and again. -> See: systemctl status supervisord, and journalctl -u
    supervisord.
unit supervisord: ActiveState=(?:inactive|deactivating)
    The unit supervisord is stopped. -> Start it, and at every boot, with: systemctl enable --now supervisord.
unit supervisord: ActiveState=active
    The unit supervisord is active, and its socket is missing: it is just starting, or listens elsewhere. -> Restart it
    if its configuration has changed since it started: systemctl restart supervisord. Or compare file= in its section
    [unix_http_server] with where it was looked for.
unit supervisord: NotRunning
    supervisord was not started, and no systemd here keeps it alive; or it listens elsewhere. -> Start it, or correct
    the address.
""")

# What shows that a server began: older lines in its log are of an earlier run. The first that is there counts, since
# the later ones are printed by each worker as well.
_BEGINNINGS = ("Starting gunicorn", "Started parent process", "Started server process")
_CODES = {
    "EACCES": "no permission",
    "EPERM": "no permission",
    "EROFS": "read-only file system",
    "ENOENT": "no such directory",
    "ENOTDIR": "a part of the path is no directory",
    "EISDIR": "it is a directory",
}


class Finding(NamedTuple):
    strength: tuple[int, int, int]
    rule: Rule
    match: re.Match[str]


def explain(evidence: Evidence) -> list[dict[str, str]]:
    """The likely causes with their fixes: one for what does not run, one a symptom for what runs and is not well."""
    channels = _channels(evidence)
    found = sorted(_findings(RULES, channels), key=lambda finding: finding.strength)
    if not found:
        # By the order of the table, whatever the channel.
        found = list(_findings(GENERAL_RULES, channels))[:1]
    by_symptom: dict[str, Finding] = {}
    for finding in found:
        by_symptom.setdefault(finding.rule.symptom, finding)
    chosen = list(by_symptom.values())
    return [_words(finding, evidence) for finding in (chosen if evidence.up else chosen[:1])]


def _channels(evidence: Evidence) -> dict[str, list[str]]:
    """The texts to look into, by channel."""
    endings = ", ".join(evidence.endings)
    strays = f"{endings}; {_processes(evidence.strays)}" if evidence.strays else ""
    # What could not be started wrote nothing: its log is of an earlier run.
    started = not evidence.spawn_error or evidence.spawn_error.startswith(("Exited too quickly", "Bad exit code"))
    return {
        "spawn": [evidence.spawn_error],
        "configuration": [evidence.configuration],
        "kernel": ["\n".join(evidence.kernel)],
        "strays": [strays],
        "log": [_last_run(lines) for lines in evidence.logs] if started else [],
        "command": [f"{endings}; {evidence.command}"] if evidence.command and not evidence.up else [],
        "ending": list(evidence.endings[-1:]) if not evidence.up else [],
        "health": [evidence.health],
        "unit": [evidence.unit],
    }


def _processes(pids: Sequence[int]) -> str:
    return ("process " if len(pids) == 1 else "processes ") + ", ".join(map(str, pids))


def _last_run(lines: Sequence[str]) -> str:
    for beginning in _BEGINNINGS:
        starts = [number for number, line in enumerate(lines) if beginning in line]
        if starts:
            return "\n".join(lines[starts[-1] :])
    return "\n".join(lines)


def _findings(rules: Sequence[Rule], channels: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    for row, rule in enumerate(rules):
        for text in filter(None, channels[rule.channel]):
            for last in list(_compiled(rule.pattern).finditer(text))[-1:]:
                yield Finding((CHANNELS.index(rule.channel), text.count("\n", last.end()), row), rule, last)


def _compiled(pattern: str) -> re.Pattern[str]:
    # re keeps compiled patterns itself.
    return re.compile(pattern, re.MULTILINE)


def _words(finding: Finding, evidence: Evidence) -> dict[str, str]:
    facts = _facts(finding.match.groupdict(default=""), evidence)
    return {"cause": finding.rule.cause.format_map(facts), "fix": finding.rule.fix.format_map(facts)}


def _facts(groups: dict[str, str], evidence: Evidence) -> dict[str, str]:
    user = f"the user {evidence.user}" if evidence.user else "its user"
    facts = {
        "name": evidence.name,
        "user": user,
        "user_begin": user[:1].upper() + user[1:] if evidence.user else f"The user of {evidence.name}",
        "log_paths": " or ".join(filter(None, evidence.log_paths)),
        "holder": evidence.holder(int(groups["port"])) if groups.get("port") else "",
        "code_meaning": _CODES.get(groups.get("code", ""), "it can't be opened"),
        "used": f" with {int(groups['kb']) // 1024} MiB in use" if groups.get("kb") else "",
        "of_host": f" of {groups['host']}" if groups.get("host") else "",
        "at_path": f" ({groups['path']})" if groups.get("path") else "",
    }
    # A quoted sentence brings its own full stop.
    return {**facts, **{group: text.rstrip(".") if group == "error" else text for group, text in groups.items()}}


def in_words(causes: Iterable[Mapping[str, Any]], indent: str = "  ") -> list[str]:
    """Lines for a message."""
    lines = []
    for each in causes:
        lines += [f"{indent}Likely cause: {each['cause']}", f"{indent}Fix: {each['fix']}"]
    return lines
