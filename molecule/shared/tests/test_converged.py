"""After converge, check mode reports that a run would change nothing."""

from __future__ import annotations


def test_check_mode_reports_no_change(play, converge_playbook, host_names) -> None:
    done = play(converge_playbook, "--check", "--diff")
    assert done.status == 0, done.output
    assert sorted(done.recap) == host_names, done.output
    assert done.changed() == 0, done.output
