# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs and sends a source that lies on the controller; has the host fetch one that lies in a network."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _source

MODULE = "asgiops.fastapi_host.source_tree"


class ActionModule(ActionBase):
    _requires_connection = True
    TRANSFERS_FILES = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        source = self._task.args.get("source")
        # What is no mapping at all is refused by the module.
        source = source if isinstance(source, dict) else {}
        wrong = list(_source.problems(source))
        if wrong:
            raise AnsibleActionFail("\n".join(wrong))
        try:
            if source.get("path"):
                result.update(self._from_directory(source))
            elif "://" in str(source.get("archive", "")):
                result.update(self._from_address(source))
            elif source.get("archive"):
                result.update(self._from_archive(source))
            elif source.get("package"):
                result.update(self._from_package(source))
            elif source.get("repo"):
                # Only the host knows what the version leads to.
                result.update(self._on_host(revision=_source.revision_of(source)))
            else:
                result.update(self._on_host())
        except _source.SourceError as error:
            raise AnsibleActionFail(str(error)) from error
        return result

    def _on_host(self, **known: str) -> dict[str, Any]:
        return self._execute_module(MODULE, {**self._task.args, **known}, task_vars=self._variables)

    def _call(self, module: str, **arguments: Any) -> dict[str, Any]:
        return self._execute_module(module, arguments, task_vars=self._variables)

    def _asked(self, revision: str) -> dict[str, Any]:
        """Whether the source is there, without a question where that is known."""
        if boolean(self._task.args.get("ask", True)) or self._task.check_mode:
            return self._on_host(revision=revision)
        return {"missing": True}

    def _is_settled(self, answer: dict[str, Any]) -> bool:
        return bool(answer.get("failed") or not answer.get("missing") or self._task.check_mode)

    def _from_directory(self, source: dict[str, Any]) -> dict[str, Any]:
        directory = _source.directory_of(source)
        revision = directory.digest()
        left_out = directory.left_out
        answer = self._asked(revision)
        if not self._is_settled(answer):
            with tempfile.TemporaryDirectory(prefix="fastapi-host-") as folder:
                archive = os.path.join(folder, "source.tar.gz")
                directory.pack(archive)
                answer = self._send(archive, revision)
        answer["left_out"] = left_out
        if left_out and answer.get("missing"):
            names = ", ".join([*map(repr, left_out[:10]), *(["..."] if len(left_out) > 10 else [])])
            answer.setdefault("warnings", []).append(
                f"left out of source.path {source['path']}, since such files usually hold secrets: {names}. Set their"
                " values in secrets or environment of the app, or name the files in source.include"
            )
        return answer

    def _from_archive(self, source: dict[str, Any]) -> dict[str, Any]:
        archive = os.path.expanduser(str(source["archive"]))
        revision = _source.revision_of(source)
        answer = self._asked(revision)
        return answer if self._is_settled(answer) else self._send(archive, revision)

    def _from_package(self, source: dict[str, Any]) -> dict[str, Any]:
        lock = os.path.expanduser(str(source.get("lock") or ""))
        revision = _source.revision_of(source)
        answer = self._asked(revision)
        if self._is_settled(answer):
            return answer
        with tempfile.TemporaryDirectory(prefix="fastapi-host-") as folder:
            archive = os.path.join(folder, "source.tar.gz")
            _source.pack_lock(lock, archive)
            return self._send(archive, revision)

    def _send(self, archive: str, revision: str) -> dict[str, Any]:
        path = self._transfer_file(archive, self._connection._shell.join_path(self._make_tmp_path(), "source"))
        try:
            return self._on_host(revision=revision, archive=path)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _from_address(self, source: dict[str, Any]) -> dict[str, Any]:
        revision = _source.revision_of(source)
        answer = self._on_host(revision=revision)
        if self._is_settled(answer):
            return answer
        path = f"{self._make_tmp_path()}/source"
        try:
            fetched = self._call(
                "ansible.legacy.get_url", url=source["archive"], dest=path, checksum=f"sha256:{revision}", mode="0600"
            )
            if fetched.get("failed"):
                # Not its other values, which repeat an address that may have a password in it.
                output = str(fetched.get("msg")).replace(str(source["archive"]), "the address")
                return {
                    "failed": True,
                    "msg": f"source.archive is {_source.redacted(source['archive'])}: the host could not fetch it: "
                    f"{output!r}; check the address, source.checksum, and what the host reaches",
                }
            return self._on_host(revision=revision, archive=path)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
