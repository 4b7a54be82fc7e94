"""The event listeners: what fails is reported, and started again once its cause is gone."""

from __future__ import annotations

import json

import pytest
from test_operations import pids, without

RECEIVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open("/run/hooks", "a") as hooks:
            hooks.write(body.replace(chr(10), " ") + chr(10))
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9800), Handler).serve_forever()
"""
# Fails until the file is there.
FATAL = """[program:fatal]
command=/bin/sh -c "echo the flag is missing >&2; [ -e /run/flag ] || exit 3; exec sleep 100007"
startretries=1
[program:exits]
command=/bin/sh -c "sleep 2; exit 7"
autorestart=false
"""


@pytest.fixture(scope="module")
def receiver(host, wait_for):
    host.check_output("rm -f /run/hooks /run/flag")
    host.check_output(f"systemd-run --unit=receiver python3 -c '{RECEIVER}'")
    wait_for(lambda: "9800" in host.check_output("ss -Hltn"), 10, "the receiver listens")
    yield
    host.run("systemctl stop receiver")
    host.run("rm -f /etc/supervisord.d/fatal.ini")
    host.run("systemctl reload supervisord")


def reports(host) -> list[dict]:
    text = host.run("cat /run/hooks").stdout
    return [json.loads(row) for row in text.splitlines()]


def test_failures_are_reported_and_retried(host, receiver, wait_for) -> None:
    before = pids(host)
    host.run(f"sh -c 'cat > /etc/supervisord.d/fatal.ini' <<'END'\n{FATAL}END")
    host.check_output("systemctl reload supervisord")
    wait_for(lambda: len(reports(host)) >= 2, 20, f"two reports: {host.run('supervisorctl status').stdout}")
    reported = {report["process"]: report for report in reports(host)}
    assert reported["fatal"]["event"] == "PROCESS_STATE_FATAL"
    assert reported["exits"]["event"] == "PROCESS_STATE_EXITED"
    assert reported["exits"]["exit_status"] == 7
    assert reported["exits"]["host"] == host.check_output("hostname")
    journal = host.check_output("journalctl --no-pager --output cat --since -5min")
    for report in reported.values():
        # syslog adds the host itself.
        assert report["text"].partition(": ")[2] in journal
    # Its cause is gone, and nobody starts it but the listener.
    host.check_output("touch /run/flag")
    wait_for(lambda: "fatal" in pids(host), 15, "the program runs")
    assert without(pids(host), "fatal", "exits") == before


def test_their_logs_hold_no_secret(host, receiver) -> None:
    for name in ("fastapi_notify", "fastapi_retry"):
        assert "s3cr3t" not in host.file(f"/var/log/supervisor/{name}.log").content_string
