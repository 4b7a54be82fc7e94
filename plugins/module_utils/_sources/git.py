# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One commit of a git repository in a network. What it is given never reaches git as an option or a command."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import tempfile
from typing import Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import Ended, run
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.archive import (
    SourceTreeError,
    Tree,
    unpack_tar,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._sources.tree import locked, remove

FULL_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SHORT_ID = re.compile(r"[0-9a-f]{4,64}")
LOOK_TIMEOUT, FETCH_TIMEOUT = 120, 1800
# Whatever the configuration of root's git says. The describe of an exported file needs the tags.
SETTINGS = ("protocol.ext.allow=never", "core.hooksPath=/dev/null", "gc.autoDetach=false")
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
# Keeps a commit that is on no branch from git's own cleaning.
WANTED = "refs/fastapi/wanted"
# A clone that is worth nothing any more.
BROKEN = re.compile(r"\.lock'|corrupt|bad object|loose object|object file|not a git repository|bad signature|broken")
ABSENT = re.compile(r"not our ref|unadvertised object|couldn't find remote ref|no such remote ref|unknown revision")
# What git, ssh and curl print, and what it means for the one who wrote the variable.
CAUSES = (
    (
        r"IDENTIFICATION HAS CHANGED|Host key verification failed",
        "its server shows another SSH host key than the one that the host knows",
        "find out why; if that is right, run on the host as root: ssh-keygen -R SERVER",
    ),
    (
        r"Permission denied|Authentication failed|could not read (?:Username|Password)|Access denied|"
        r"terminal prompts disabled|returned error: 40[13]|Load key",
        "it does not let the host in",
        "set source.key_file to a private key on the host that may read the repository, and write the address for ssh"
        " (git@SERVER:PATH); a server may also say so of a repository that it does not have",
    ),
    (
        r"dubious ownership",
        "it belongs to another account than the one that reads it",
        "run on the host as root: chown -R root: the repository, or git config --system --add safe.directory PATH",
    ),
    (
        r"[Rr]epository .*not found|not appear to be a git repository|does not exist|returned error: 404|"
        r"could not be found|not exported",
        "there is no such repository",
        "correct source.repo",
    ),
    (
        "certificate",
        "its certificate is not accepted",
        "add its authority to the host's: copy it to /etc/pki/ca-trust/source/anchors and run update-ca-trust",
    ),
    (
        r"[Cc]ould not resolve|Name or service not known|name resolution|Connection (?:refused|timed out|reset|closed)|"
        r"unreachable|No route to host|Failed to connect|[Uu]nable to connect|[Oo]peration timed out|took longer",
        "the host does not reach its server",
        "check name resolution, routes, firewalls and proxies of the host, or the address in source.repo",
    ),
    (r"transport '.*' not allowed", "its protocol is not allowed", "use https, ssh, git or a path of the host"),
    (r"No space left", "the disk of the host is full", "make room below the directory of the apps"),
)


class Repository:
    """A repository, and a bare clone of it on the host, which is only a cache: a broken one is created again."""

    def __init__(self, git: str, address: str, key_file: Optional[str], clone: str, scratch: str = "") -> None:
        """With scratch, a directory that goes with this run, nothing else on the host changes."""
        self._git, self._address, self._clone = git, address, clone
        self._work = os.path.join(scratch, "repository") if scratch else clone
        key = os.path.expanduser(key_file) if key_file else ""
        if key and not os.path.isfile(key):
            raise SourceTreeError(f"source.key_file is {key_file!r}: there is no such file on the host; bring it there")
        self._environment = {**os.environ, **_environment(key, scratch)}

    def revision(self, version: str) -> str:
        """The commit that a tag, a branch, HEAD or a part of its own name leads to."""
        if FULL_ID.fullmatch(version):
            return version
        refs = self._refs(version)
        found = refs.get(version) or refs.get(f"refs/{version}")
        tag, branch = refs.get(f"refs/tags/{version}"), refs.get(f"refs/heads/{version}")
        if not found and tag and branch and tag != branch:
            raise SourceTreeError(
                f"source.version is {version!r}, a tag and a branch of {self._address} that differ; set it to"
                f" refs/tags/{version} or refs/heads/{version}"
            )
        found = found or branch or tag
        if not found and SHORT_ID.fullmatch(version):
            found = self._find(version)
            if not found:
                self._fetch()
                found = self._find(version)
        if not found:
            raise self._no_version(version)
        return found

    def bring(self, revision: str) -> None:
        """Brings a commit to the host, unless it is there."""
        if self._find(revision):
            return
        self._fetch(revision)
        if self._find(revision):
            return
        # On no branch: a server gives it by its name, if it does.
        fetched = self._try("--", self._address, f"+{revision}:{WANTED}")
        if fetched.status != 0 and not ABSENT.search(fetched.output):
            raise self._failure(fetched.output)
        if not self._find(revision):
            raise self._no_version(revision)

    def unpack(self, revision: str, tree: Tree) -> None:
        """The files of one commit, without git's own."""
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(
                self._command("archive", "--format=tar", revision),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
            ) as process,
        ):
            problem = None
            stream = process.stdout or io.BytesIO()
            try:
                unpack_tar(stream, tree)
            except SourceTreeError as error:
                problem = error
            finally:
                # It ends then, by SIGPIPE if it has more to say.
                stream.close()
            if process.wait() > 0:
                complaints.seek(0)
                output = complaints.read().decode("utf-8", "replace")
                raise SourceTreeError(
                    f"git archive of {revision} failed; remove {self._clone} on the host, which is created again. git"
                    f" reported: {_last(output)}"
                )
            if problem:
                raise problem

    def _refs(self, version: str) -> dict[str, str]:
        """Commits by the names of what leads to them, of those that the version may mean."""
        wanted = [version, f"refs/{version}", f"refs/heads/{version}", f"refs/tags/{version}"]
        patterns = [*wanted, *(f"{name}^{{}}" for name in wanted)]
        answer = self._run("ls-remote", "--quiet", "--", self._address, *patterns, timeout=LOOK_TIMEOUT)
        if answer.status != 0:
            raise self._failure(answer.output)
        found = re.findall(r"^([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)$", answer.output, flags=re.M)
        # An annotated tag has a second line, which names its commit.
        return {name[:-3] if name.endswith("^{}") else name: commit for commit, name in found}

    def _find(self, name: str) -> str:
        for clone in dict.fromkeys((self._work, self._clone)):
            if not _is_bare(clone):
                continue
            answer = self._run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", clone=clone)
            commit = re.search(rf"^(?:{FULL_ID.pattern})$", answer.output, flags=re.M)
            if answer.status == 0 and commit:
                return commit[0]
        return ""

    def _fetch(self, revision: str = "") -> None:
        """All branches and tags."""
        answer = self._try("--prune", "--", self._address, *REFSPECS, revision=revision)
        if answer.status != 0:
            raise self._failure(answer.output)

    def _try(self, *arguments: str, revision: str = "") -> Ended:
        arguments = ("fetch", "--quiet", "--force", "--no-tags", "--no-recurse-submodules", *arguments)
        with locked(os.path.dirname(self._work)):
            self._make_clone(revision)
            answer = self._run(*arguments, timeout=FETCH_TIMEOUT)
            if answer.status != 0 and BROKEN.search(answer.output) and not _cause(answer.output):
                remove(self._work)
                self._make_clone(revision)
                answer = self._run(*arguments, timeout=FETCH_TIMEOUT)
        return answer

    def _make_clone(self, revision: str) -> None:
        if _is_bare(self._work):
            os.chmod(self._work, 0o700)
            return
        # One with a working directory is what earlier versions made.
        remove(self._work)
        os.mkdir(self._work, 0o700)
        kind = "sha256" if len(revision) == 64 else "sha1"
        made = self._run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
        if made.status != 0:
            raise SourceTreeError(f"git could not make {self._work}; git reported: {_last(made.output)}")

    def _command(self, *arguments: str, clone: str = "") -> list[str]:
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        return [self._git, *settings, f"--git-dir={clone or self._work}", *arguments]

    def _run(self, *arguments: str, timeout: int = LOOK_TIMEOUT, clone: str = "") -> Ended:
        ended = run(self._command(*arguments, clone=clone), timeout, self._environment)
        return ended if ended.status is not None else Ended(None, f"git {arguments[0]} took longer than {timeout} s")

    def _failure(self, output: str) -> SourceTreeError:
        cause, fix = _cause(output) or ("git failed", "see what git reported")
        return SourceTreeError(f"source.repo is {self._address}: {cause}; {fix}. git reported: {_last(output)}")

    def _no_version(self, version: str) -> SourceTreeError:
        return SourceTreeError(
            f"source.version is {version!r}: {self._address} has no such tag, branch or commit; push it, or correct"
            " source.version"
        )


def _environment(key: str, scratch: str) -> dict[str, str]:
    # A server that is seen for the first time is trusted, and never again with another key.
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=30"]
    if key:
        ssh += ["-o", "IdentitiesOnly=yes", "-i", key]
    if scratch:
        # New keys are written to the first one.
        ssh += ["-o", f"UserKnownHostsFile={scratch}/known_hosts ~/.ssh/known_hosts"]
    return {
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_SSH_COMMAND": " ".join(map(shlex.quote, ssh)),
        "GIT_SSH_VARIANT": "ssh",
        "LC_ALL": "C",
        "LANGUAGE": "",
    }


def _is_bare(clone: str) -> bool:
    return os.path.isfile(os.path.join(clone, "HEAD")) and os.path.isdir(os.path.join(clone, "objects"))


def _cause(output: str) -> Optional[tuple[str, str]]:
    return next(((cause, fix) for pattern, cause, fix in CAUSES if re.search(pattern, output)), None)


def _last(output: str) -> str:
    """The end of what git reported, without what its configuration may put into an address."""
    lines = [line.strip() for line in re.sub(r"://[^/@\s]+@", "://***@", output).splitlines() if line.strip()]
    return repr(" / ".join(lines[-4:])[-600:])
