# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The accounts that apps run as: created where they are missing, else used as they are or refused.

Nothing about an account that exists is changed. A record on the host says which accounts were created for apps, and
which apps run as them; where there is none, as on hosts of earlier versions, such an account is recognized by its home.
"""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.asgiops.fastapi_host.plugins.module_utils import _layout
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._processes.commands import run

DIRECTORY = _layout.ETC
RECORD = f"{DIRECTORY}/accounts.json"
# Not the record itself, which is replaced, and not its directory: whoever may read that could hold a lock on it.
LOCK = f"{DIRECTORY}/accounts.lock"
LOGIN_DEFS = "/etc/login.defs"
SHELL = "/sbin/nologin"
LOCK_SECONDS = 60
COMMAND_SECONDS = 60

# As useradd takes it, and accounts of a directory service: nothing that an option, a unit or a shell could misread.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
# The user that the kernel and NFS have for those that they can't name.
OVERFLOW_UID = 65534


class AccountError(Exception):
    """A foreseeable failure; its text is for the user."""


@dataclass(frozen=True)
class WantedAccount:
    """The account of one app. An empty group is that of the account's own name."""

    app: str
    user: str
    home: str
    group: str = ""
    shared: bool = False
    existing: bool = False


@dataclass(frozen=True)
class Owned:
    """What the record says of an account: whether it was created for an app, and which apps run as it."""

    made: bool
    uid: Optional[int]
    apps: tuple[str, ...]


Record = dict[str, Owned]


@dataclass(frozen=True)
class Creation:
    """An account that is not there yet."""

    wanted: WantedAccount
    makes_group: bool

    @property
    def group(self) -> str:
        return self.wanted.group or self.wanted.user

    def commands(self) -> Iterator[list[str]]:
        wanted = self.wanted
        # With a group of its own name useradd creates both, or none.
        own = self.makes_group and self.group == wanted.user
        if self.makes_group and not own:
            yield ["/usr/sbin/groupadd", "--system", self.group]
        group = ["--user-group"] if own else ["--gid", self.group]
        entry = ["--no-create-home", "--home-dir", wanted.home, "--shell", SHELL]
        yield ["/usr/sbin/useradd", "--system", *group, *entry, wanted.user]

    def __str__(self) -> str:
        wanted = self.wanted
        return f"account {wanted.user}: new, group {self.group}, home {wanted.home}, shell {SHELL}"


@dataclass(frozen=True)
class AppAccount:
    """What an app runs as. The numbers are none as long as the account is not there."""

    app: str
    user: str
    group: str
    home: str
    uid: Optional[int]
    gid: Optional[int]
    made: bool
    apps: list[str]


@dataclass
class Outcome:
    accounts: list[AppAccount]
    creations: list[Creation]
    # The record as text.
    before: str
    after: str
    warnings: list[str] = field(default_factory=list)

    @property
    def differences(self) -> list[str]:
        record = [f"{RECORD}: content"] if self.before != self.after else []
        return [*map(str, self.creations), *record]

    def diff(self) -> list[dict[str, str]]:
        accounts = "".join(f"{creation}\n" for creation in self.creations)
        shown = []
        if accounts:
            shown.append({"before_header": "accounts", "after_header": "accounts", "before": "", "after": accounts})
        if self.before != self.after:
            shown.append({"before_header": RECORD, "after_header": RECORD, "before": self.before, "after": self.after})
        return shown


def settle(wanted: list[WantedAccount], check_mode: bool = False) -> Outcome:
    """Makes sure of all accounts, or of none when one of them is refused."""
    outcome = _settle(wanted, check_mode=True)
    if check_mode or not outcome.differences:
        return outcome
    os.makedirs(DIRECTORY, 0o755, exist_ok=True)
    # Decided again, on what another run has left.
    with _locked():
        return _settle(wanted, check_mode=False)


def _settle(wanted: list[WantedAccount], check_mode: bool) -> Outcome:
    before, known, warnings = read_record()
    plan = AccountPlan(known, wanted)
    if not check_mode:
        for creation in plan.creations.values():
            _create(creation)
    accounts = [plan.account(entry) for entry in wanted]
    after = _text(plan.settled_record())
    if before != after and not check_mode:
        _write_record(after)
    return Outcome(accounts, list(plan.creations.values()), before, after, warnings)


# --- decisions


class AccountPlan:
    """What is to be done for all of the accounts; nothing is changed yet."""

    def __init__(self, known: Record, wanted: list[WantedAccount]) -> None:
        self.record = dict(known)
        self.creations: dict[str, Creation] = {}
        self._wanted = wanted
        self._new_groups: set[str] = set()
        self._leave_former_accounts()
        problems = []
        for entry in wanted:
            try:
                self._decide(entry)
            except AccountError as error:
                problems.append(str(error))
        if problems:
            raise AccountError("\n".join(problems))

    def account(self, wanted: WantedAccount) -> AppAccount:
        found, owned, group = _user(wanted.user), self.record[wanted.user], wanted.group or wanted.user
        gid = _group(group)
        return AppAccount(
            wanted.app,
            wanted.user,
            group,
            found.pw_dir if found else wanted.home,
            found.pw_uid if found else None,
            gid.gr_gid if gid else None,
            owned.made,
            list(owned.apps),
        )

    def settled_record(self) -> Record:
        """The record with the numbers that new accounts have got."""
        record = dict(self.record)
        for name in self.creations:
            found = _user(name)
            if found:
                record[name] = Owned(True, found.pw_uid, record[name].apps)
        return record

    def _leave_former_accounts(self) -> None:
        """An app runs as one account: where it runs as another one from now on, the former is not its any more."""
        now = {entry.app: entry.user for entry in self._wanted}
        for name, owned in self.record.items():
            stay = tuple(app for app in owned.apps if now.get(app, name) == name)
            self.record[name] = Owned(owned.made, owned.uid, stay)

    def _decide(self, wanted: WantedAccount) -> None:
        for key, value in (("app", wanted.app), ("user", wanted.user), ("group", wanted.group or wanted.user)):
            if not NAME.fullmatch(value):
                raise AccountError(
                    f"app {wanted.app!r}: {key} is {value!r}: it must be letters, digits, '_', '.' and '-', no digit"
                    f" first, 32 at most.\nSet {key} to such a name."
                )
        found = _user(wanted.user)
        recorded = self.record.get(wanted.user)
        owned = self._owned(wanted, found, recorded) if found else recorded or Owned(True, None, ())
        _refuse_account_of_another(wanted, found, owned)
        if found is not None:
            _refuse_foreign_group(wanted, found)
        elif wanted.user in self.creations:
            self._refuse_other_group(wanted)
        else:
            self.creations[wanted.user] = Creation(wanted, self._makes_group(wanted))
            owned = Owned(True, None, owned.apps)
        self.record[wanted.user] = Owned(owned.made, owned.uid, tuple(sorted({*owned.apps, wanted.app})))

    def _owned(self, wanted: WantedAccount, found: pwd.struct_passwd, owned: Optional[Owned]) -> Owned:
        """Whose the account is that exists; refuses root and what belongs to another service."""
        if found.pw_uid == 0:
            raise AccountError(
                f"app {wanted.app}: user is {wanted.user}, which is root (uid 0): no app runs as root."
                f"\nSet user to another name, such as user: {_free_name(wanted)}."
            )
        if owned is None or owned.uid not in (None, found.pw_uid):
            # Not recorded, or another one with the name of one that was removed.
            owned = self._recognized(wanted, found) or Owned(False, found.pw_uid, ())
        if not owned.made and not wanted.existing and _is_system(found.pw_uid):
            raise AccountError(
                f"app {wanted.app}: user is {wanted.user}, a system account that was not created for an app"
                f" ({_described(found)}): it belongs to another service, whose files the app could read and write."
                f"\nSet user to another name, such as user: {_free_name(wanted)}; or, if the app is meant to run as"
                f" {wanted.user}, existing_user: true."
            )
        return Owned(owned.made, found.pw_uid, owned.apps)

    def _recognized(self, wanted: WantedAccount, found: pwd.struct_passwd) -> Optional[Owned]:
        """An account as earlier versions created it, without a record; its home has the name of its app."""
        homes, app = os.path.split(found.pw_dir)
        if not _is_system(found.pw_uid) or found.pw_shell != SHELL or homes != os.path.dirname(wanted.home):
            return None
        elsewhere = {entry.app for entry in self._wanted if entry.user != wanted.user}
        elsewhere.update(name for owned in self.record.values() for name in owned.apps)
        return Owned(True, found.pw_uid, () if app in elsewhere else (app,))

    def _makes_group(self, wanted: WantedAccount) -> bool:
        """Whether the group of a new account has to be created; refuses root's, and one that nobody asked for."""
        name = wanted.group or wanted.user
        found = _group(name)
        if found is None:
            is_new = name not in self._new_groups
            self._new_groups.add(name)
            return is_new
        if found.gr_gid == 0:
            raise AccountError(
                f"app {wanted.app}: group is {name}, which is root's (gid 0): no app runs in it."
                "\nRemove group, or set it to another name."
            )
        if not wanted.group:
            raise AccountError(
                f"app {wanted.app}: there is no account {wanted.user}, but a group {name} (gid {found.gr_gid}), which"
                " may have rights on this host that the app would get."
                f"\nSet user to another name, such as user: {_free_name(wanted)}; or, if the app is meant to be in that"
                f" group, group: {name}."
            )
        return False

    def _refuse_other_group(self, wanted: WantedAccount) -> None:
        created = self.creations[wanted.user]
        if created.group != (wanted.group or wanted.user):
            raise AccountError(
                f"app {wanted.app}: group is {wanted.group or wanted.user}, and app {created.wanted.app} has the same"
                f" user {wanted.user} with the group {created.group}.\nSet group: {created.group} for both."
            )


def _refuse_account_of_another(wanted: WantedAccount, found: Optional[pwd.struct_passwd], owned: Owned) -> None:
    others = [app for app in owned.apps if app != wanted.app]
    if others and not wanted.shared:
        names = ", ".join(others)
        what = f"{wanted.user} (uid {found.pw_uid})" if found else wanted.user
        raise AccountError(
            f"app {wanted.app}: user is {what}, which is the account of {names} on this host ({RECORD}): apps with one"
            " account read, change and stop each other."
            f"\nSet user to another name, such as user: {_free_name(wanted)}; or, if this is meant, shared_user: true"
            f" for {wanted.app} and {names}. An app that is not on this host any more can be removed from {RECORD}."
        )


def _refuse_foreign_group(wanted: WantedAccount, found: pwd.struct_passwd) -> None:
    """An account that exists gets no group; it must be in the one that the app's files have, and not in root's."""
    ids = os.getgrouplist(wanted.user, found.pw_gid)
    if 0 in ids:
        raise AccountError(
            f"app {wanted.app}: user is {wanted.user} ({_described(found)}), which is in the group of root (gid 0): no"
            f" app runs in it.\nSet user to another name, such as user: {_free_name(wanted)}."
        )
    name = wanted.group or wanted.user
    group = _group(name)
    if group is not None and group.gr_gid == 0:
        raise AccountError(
            f"app {wanted.app}: group is {name}, which is root's (gid 0): no app runs in it."
            "\nRemove group, or set it to another name."
        )
    if group is None or group.gr_gid not in ids:
        own = _group_name(found.pw_gid)
        raise AccountError(
            f"app {wanted.app}: the account {wanted.user} ({_described(found)}) is not in the group {name}, and an"
            f" account that exists is not changed.\nSet group: {own}, which is its own group"
            + (f"; or run `usermod --append --groups {name} {wanted.user}`." if group else ".")
        )


def _free_name(wanted: WantedAccount) -> str:
    """A name for an account that is the app's alone."""
    return f"{wanted.app[:28]}_app" if wanted.user == wanted.app else wanted.app


def _described(found: pwd.struct_passwd) -> str:
    return f"uid {found.pw_uid}, home {found.pw_dir}, shell {found.pw_shell}"


# --- the host's accounts


def _user(name: str) -> Optional[pwd.struct_passwd]:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group(name: str) -> Optional[grp.struct_group]:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_system(uid: int) -> bool:
    return uid <= _last_system_uid() or uid == OVERFLOW_UID


def _last_system_uid() -> int:
    """SYS_UID_MAX, which is one less than UID_MIN where it is not set."""
    found = {}
    try:
        with open(LOGIN_DEFS, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                words = line.split()
                if len(words) == 2 and words[1].isdigit():
                    found[words[0]] = int(words[1])
    except OSError:
        pass
    return found.get("SYS_UID_MAX", found.get("UID_MIN", 1000) - 1)


def _create(creation: Creation) -> None:
    for command in creation.commands():
        try:
            ended = run(command, COMMAND_SECONDS)
        except OSError as error:
            raise AccountError(_not_created(creation, command, str(error))) from error
        if ended.status is None:
            raise AccountError(_not_created(creation, command, f"no end within {COMMAND_SECONDS} s"))
        if ended.status != 0:
            raise AccountError(_not_created(creation, command, f"status {ended.status}: {ended.output.strip()}"))


def _not_created(creation: Creation, command: list[str], why: str) -> str:
    wanted = creation.wanted
    return (
        f"app {wanted.app}: the account {wanted.user} could not be created: {os.path.basename(command[0])}: {why}"
        f"\nRun `{' '.join(command)}` on the host to see it fail, and this again when it does not."
    )


# --- the record


def read_record() -> tuple[str, Record, list[str]]:
    """The record as text and as data, and what is wrong with it. One that can't be read is as good as none."""
    try:
        _refuse_others_hands(DIRECTORY)
        _refuse_others_hands(RECORD)
        with open(RECORD, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except FileNotFoundError:
        return "", {}, []
    try:
        return text, {name: _parsed(entry) for name, entry in json.loads(text).items()}, []
    except (AttributeError, KeyError, TypeError, ValueError):
        warning = (
            f"{RECORD} is not readable and is written again: accounts are recognized by their homes, and which other"
            " apps share them is not known until these run again"
        )
        return text, {}, [warning]


def _parsed(entry: dict[str, object]) -> Owned:
    made, uid, apps = entry["made"], entry["uid"], entry["apps"]
    if not isinstance(made, bool) or not isinstance(uid, int) or not isinstance(apps, list):
        raise TypeError
    return Owned(made, uid, tuple(map(str, apps)))


def _text(record: Record) -> str:
    plain = {name: {"made": owned.made, "uid": owned.uid, "apps": list(owned.apps)} for name, owned in record.items()}
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


def _refuse_others_hands(path: str) -> None:
    found = os.lstat(path)
    is_plain = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
    if not is_plain or found.st_uid != 0 or stat.S_IMODE(found.st_mode) & 0o022:
        raise AccountError(
            f"{path} is not root's alone to write (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}):"
            " what it says of accounts can't be trusted."
            f"\nCheck what is in it, and run `chown root:root {path} && chmod go-w {path}`."
        )


def _write_record(text: str) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".accounts.", dir=DIRECTORY)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            os.fchmod(handle, 0o644)
            stream.write(text)
            stream.flush()
            os.fsync(handle)
        os.rename(temporary, RECORD)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _locked() -> Iterator[None]:
    """One run at a time decides about accounts."""
    handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(handle):
            if time.monotonic() > deadline:
                raise AccountError(
                    f"another run has held {LOCK} for {LOCK_SECONDS} s.\nSee which with `fuser -v {LOCK}`, and run"
                    " this again when it has ended."
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def from_options(entries: Iterable[dict[str, object]]) -> list[WantedAccount]:
    """The module's option as data."""
    return [
        WantedAccount(
            str(entry["app"]),
            str(entry["user"]),
            str(entry["home"]),
            str(entry["group"]),
            bool(entry["shared_user"]),
            bool(entry["existing_user"]),
        )
        for entry in entries
    ]
