# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of uv_venv, and what can be refused without looking at the host."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.lock import (
    LockError,
    Requirement,
    format_of,
    parse_additions,
)
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._venv.run import Credential, user_info

LISTS = ("extras", "groups", "additions", "extra_index_urls", "source_distributions", "build_requirements")


class VenvError(Exception):
    """The environment can't be created; the text is the cause and the fix, for the user."""


@dataclass(frozen=True)
class EnvironmentSettings:
    """The module's options."""

    path: str
    python: str
    uv: str
    lock: str
    lock_format: str = "auto"
    install_project: bool = False
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    additions: tuple[str, ...] = ()
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    ca_bundle: str = ""
    credentials: tuple[Credential, ...] = ()
    wheelhouse: str = ""
    cache_dir: str = ""
    compile_bytecode: bool = True
    source_distributions: tuple[str, ...] = ()
    build_requirements: tuple[str, ...] = ()
    build_user: str = ""
    launcher: str = ""
    group: str = ""
    siblings: str = ""
    keep: int = 2
    timeout: int = 600

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> EnvironmentSettings:
        """From the options of the module uv_venv."""
        given = {name: value for name, value in params.items() if value is not None}
        given.update((name, tuple(given[name])) for name in LISTS if name in given)
        given["credentials"] = tuple(Credential(**item) for item in given.get("credentials", ()))
        return cls(**given)

    @property
    def format(self) -> str:
        return format_of(os.path.basename(self.lock)) if self.lock_format == "auto" else self.lock_format

    @property
    def folder(self) -> Path:
        return Path(self.lock).parent

    @property
    def source(self) -> str:
        """Where packages come from, in words."""
        if self.wheelhouse:
            return f"the wheelhouse {self.wheelhouse}"
        if self.extra_index_urls:
            return f"any index ({', '.join((*self.extra_index_urls, self.index_url or 'PyPI'))})"
        return f"the index {self.index_url}" if self.index_url else "the index PyPI"


def validate(settings: EnvironmentSettings) -> tuple[Requirement, ...]:
    """Refuse options that can't be right, whatever the host looks like; returns the additions."""
    for option in ("path", "python", "uv", "lock", "ca_bundle", "wheelhouse", "cache_dir", "launcher", "siblings"):
        value = getattr(settings, option)
        if value and not os.path.isabs(value):
            raise VenvError(f"{option}={value} is not an absolute path: write it from / on")
    if not Path(os.path.normpath(settings.path)).name:
        raise VenvError(f"path={settings.path} is no path for an environment: name one below a folder")
    for option, value in (("keep", settings.keep), ("timeout", settings.timeout)):
        if value < 1:
            raise VenvError(f"{option}={value} is too small: it must be 1 or more")
    _validate_addresses(settings)
    if settings.format == "requirements" and (settings.extras or settings.groups):
        raise VenvError(
            f"extras and groups mean nothing with lock={settings.lock}, a requirements file: choose them when you "
            "compile it, or use a uv.lock or a pylock file"
        )
    if settings.format == "uv" and os.path.basename(settings.lock) != "uv.lock":
        raise VenvError(f"lock={settings.lock} with lock_format=uv: uv reads only files named uv.lock; rename it")
    try:
        return parse_additions(settings.additions)
    except LockError as error:
        raise VenvError(f"additions: {error}") from error


def _validate_addresses(settings: EnvironmentSettings) -> None:
    urls = [("index_url", settings.index_url), *(("extra_index_urls", url) for url in settings.extra_index_urls)]
    for option, url in urls:
        if user_info(url):
            raise VenvError(
                f"{option} has a user name or password in it ({url.replace(user_info(url), '***')}); it would show in "
                "process lists and logs: take it out, and give `credentials` with host, username and password"
            )
        if url and not re.match(r"(?:https?|file)://[^\s\[\]]+$", url):
            raise VenvError(f"{option}={url} is not an http, https or file URL")
    for item in settings.credentials:
        if not item.host or any(character in item.host for character in '/:@ \t\n"'):
            host = item.host.replace(user_info(item.host) or "\0", "***")
            raise VenvError(f"credentials: host={host!r} must be a bare host name, without scheme, port and path")
        if any(not character.isprintable() for character in item.username + item.password):
            raise VenvError(f"credentials of {item.host}: username and password must be printable, on one line")
