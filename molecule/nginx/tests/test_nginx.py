"""nginx in front of apps, asked from inside the host: what it answers, passes on, refuses and writes."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path

import pytest

SCENARIO = Path(__file__).resolve().parents[1]
# The role alone.
ROLE_PLAYBOOK = str(SCENARIO.parent / "shared" / "converge.yml")
MARK = 0


@pytest.fixture(scope="module", autouse=True)
def probe(hosts):
    """What stands behind probe and limited."""
    script = shlex.quote((SCENARIO / "tests" / "probe.py").read_text(encoding="utf-8"))
    for host in hosts:
        host.check_output(f"sh -c {shlex.quote(f'printf %s {script} > /srv/probe.py')}")
        host.check_output("systemd-run --unit=probe /usr/bin/python3 /srv/probe.py 9200 9201")
        host.check_output("timeout 10 sh -c 'until ss -Hltn | grep -q :9201; do sleep 0.1; done'")
    yield
    for host in hosts:
        host.run("systemctl stop probe")


class Answer:
    def __init__(self, text: str) -> None:
        # An empty body's end of the headers is stripped.
        head, _end, self.body = text.partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.protocol, status = lines[0].split()[:2]
        self.status = int(status)
        self.headers: dict[str, list[str]] = {}
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            self.headers.setdefault(name.lower(), []).append(value)

    def header(self, name: str) -> str | None:
        values = self.headers.get(name.lower(), [])
        assert len(values) < 2, values
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)


def ask(host, url: str, *options: str, address: str = "127.0.0.1") -> Answer:
    """Asks nginx for a name, whatever DNS says of it."""
    command = ["curl", "--silent", "--include", "--insecure", "--max-time", "20", "--connect-to", f"::{address}:"]
    return Answer(host.check_output(" ".join(shlex.quote(word) for word in [*command, *options, url])))


def fails(host, url: str, *options: str) -> int:
    """curl's exit status where there is no answer."""
    command = ["curl", "--silent", "--insecure", "--max-time", "20", "--connect-to", "::127.0.0.1:", *options, url]
    return host.run(" ".join(shlex.quote(word) for word in command)).rc


def python(host, script: str, interpreter: str = "/usr/bin/python3") -> str:
    return str(host.check_output(f"{interpreter} -c {shlex.quote(script)}"))


def marked(path: str) -> str:
    """A URL that no other request has."""
    global MARK
    MARK += 1
    return f"{path}?mark={os.getpid()}-{MARK}"


def exposure(host, unit: str) -> float:
    shown = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)[1])


def log_entry(host, app: str, url: str) -> str:
    return str(host.check_output(f"grep -F -- {shlex.quote(url)} /var/log/nginx/{app}.access.log"))


# --- names and TLS


def test_it_runs_and_starts_at_boot(host) -> None:
    service = host.service("nginx")
    assert service.is_running
    assert service.is_enabled
    assert host.check_output("systemctl show --property LimitNOFILE nginx") == "LimitNOFILE=16384"


def test_the_app_is_served(host) -> None:
    for name in ("orders.example.com", "eu.orders.example.com"):
        answer = ask(host, f"https://{name}/health")
        assert (answer.status, answer.json()) == (200, {"status": "ok"})
        assert answer.protocol == "HTTP/2"


def test_http_1_is_served_as_well(host) -> None:
    assert ask(host, "https://orders.example.com/health", "--http1.1").protocol == "HTTP/1.1"


def test_port_80_redirects(host) -> None:
    answer = ask(host, "http://eu.orders.example.com/orders?a=1", "--request", "POST")
    assert (answer.status, answer.header("Location")) == (308, "https://eu.orders.example.com/orders?a=1")


def test_port_80_serves_where_it_shall_not_redirect(host) -> None:
    assert ask(host, "http://probe.example.com/").status == 200


def test_an_acme_client_reaches_its_answer(host) -> None:
    for name in ("orders", "probe", "down"):
        url = f"http://{name}.example.com/.well-known/acme-challenge/token"
        assert ask(host, url).body.strip() == "answer"


def test_an_unknown_name_gets_no_answer(host) -> None:
    empty_reply, handshake_failed = 52, 35
    assert fails(host, "http://unknown.example.com/") == empty_reply
    assert fails(host, "http://127.0.0.1/") == empty_reply
    assert fails(host, "https://unknown.example.com/") == handshake_failed
    assert fails(host, "https://127.0.0.1/") == handshake_failed


def handshake(host, version: str, ciphers: str) -> str:
    """What a handshake with this version alone ends in, offered by a client that would take anything."""
    script = f"""
import socket, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_ciphers("{ciphers}:@SECLEVEL=0")
context.minimum_version = context.maximum_version = ssl.TLSVersion.{version}
try:
    with socket.create_connection(("127.0.0.1", 443)) as raw:
        with context.wrap_socket(raw, server_hostname="orders.example.com") as wrapped:
            print(wrapped.version(), wrapped.cipher()[0])
except ssl.SSLError as error:
    print(error.reason)
"""
    return python(host, script)


@pytest.mark.parametrize(
    ("version", "ciphers", "outcome"),
    [
        ("TLSv1_3", "ALL", "TLSv1.3 "),
        ("TLSv1_2", "ALL", "TLSv1.2 ECDHE-ECDSA-"),
        ("TLSv1_1", "ALL", "PROTOCOL_VERSION"),
        ("TLSv1_2", "ECDHE-ECDSA-AES128-SHA256", "HANDSHAKE_FAILURE"),
    ],
)
def test_tls_versions_and_ciphers(host, version, ciphers, outcome) -> None:
    assert outcome in handshake(host, version, ciphers)


def test_hsts_is_sent_where_it_is_asked_for_and_over_tls_alone(host) -> None:
    assert ask(host, "https://orders.example.com/health").header("Strict-Transport-Security") == (
        "max-age=31536000; includeSubDomains"
    )
    assert ask(host, "http://orders.example.com/health").header("Strict-Transport-Security") is None
    assert ask(host, "https://limited.example.com/health").header("Strict-Transport-Security") is None


def test_the_key_is_roots(host) -> None:
    key = host.file("/etc/nginx/fastapi/tls/orders.key")
    assert (key.user, key.mode) == ("root", 0o600)
    secret = key.content_string.splitlines()[1]
    assert host.run(f"grep -rlsF -- {secret} /etc/nginx /var/log /run/fastapi").stdout.split() == [key.path]


# --- how little nginx and others may do


def test_the_unit_is_tight(host) -> None:
    assert exposure(host, "nginx") <= 2.8


def test_no_process_of_nginx_gets_more_rights(host) -> None:
    capabilities = {0: "CHOWN", 1: "DAC_OVERRIDE", 2: "DAC_READ_SEARCH", 5: "KILL", 6: "SETGID", 7: "SETUID"}
    allowed = sum(1 << number for number in [*capabilities, 10])
    pids = host.check_output("pgrep -x nginx").split()
    assert len(pids) > 1
    for pid in pids:
        status = dict(row.split(":\t", 1) for row in host.check_output(f"cat /proc/{pid}/status").splitlines())
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert int(status["CapBnd"], 16) & ~allowed == 0


def test_nginx_can_not_change_the_system(host) -> None:
    main = host.check_output("systemctl show --property MainPID --value nginx")
    for folder in ("/etc", "/usr", "/root"):
        tried = host.run(f"nsenter --target {main} --mount touch {folder}/left-by-nginx")
        assert "Read-only file system" in tried.stderr, folder
    # The proof that it is the unit's own view of the host.
    host.check_output("touch /etc/left-by-nginx")
    host.check_output("rm /etc/left-by-nginx")


def as_account(host, account: str, *command: str):
    words = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups", *command]
    return host.run(" ".join(shlex.quote(word) for word in words))


def test_an_app_can_not_read_the_logs(host) -> None:
    for path in ("orders.access.log", "shop.access.log", "error.log"):
        tried = as_account(host, "shop", "cat", f"/var/log/nginx/{path}")
        assert "Permission denied" in tried.stderr, path
    # Twice: an update of the package opens the directory until the next run. These were made by the role's check.
    assert not host.check_output("find /var/log/nginx -type f -perm /o=r")


def test_logs_are_opened_again(host, wait_for) -> None:
    """As logrotate has it, but that it leaves it to nginx to make the new one."""
    log = "/var/log/nginx/orders.access.log"
    host.check_output(f"mv {log} {log}.1")
    host.check_output("systemctl kill --kill-whom=main --signal=USR1 nginx")
    wait_for(lambda: host.file(log).exists, 5, "the new log")
    url = marked("/version")
    assert ask(host, f"https://orders.example.com{url}").status == 200
    assert log_entry(host, "orders", url)
    assert "Permission denied" in as_account(host, "shop", "cat", log).stderr


# --- what reaches the app


def test_a_client_can_not_say_that_it_is_another(host) -> None:
    claims = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example.com"]
    claims += ["X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "X-Request-ID: forged"]
    answer = ask(host, "http://probe.example.com/", *[part for claim in claims for part in ("--header", claim)])
    seen = answer.json()["headers"]
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-host"] == seen["host"] == "probe.example.com"
    assert "forwarded" not in seen
    assert re.fullmatch(r"[0-9a-f]{32}", seen["x-request-id"])
    assert answer.header("X-Request-ID") == seen["x-request-id"]


def test_a_trusted_proxy_is_believed(host) -> None:
    claims = ["X-Forwarded-For: 6.6.6.6, 192.0.2.7, 127.0.0.5", "X-Forwarded-Proto: https", "X-Request-ID: theirs-1"]
    options = ["--interface", "127.0.0.5", *[part for claim in claims for part in ("--header", claim)]]
    answer = ask(host, "http://probe.example.com/", *options)
    seen = answer.json()["headers"]
    # The last that no trusted proxy is; what comes before it the client may have made up.
    assert seen["x-forwarded-for"] == "192.0.2.7"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-request-id"] == answer.header("X-Request-ID") == "theirs-1"


def app_log_entries(host, app: str, url: str) -> list[str]:
    """Of the app's server itself."""
    return str(host.run(f"grep -rhF -- {shlex.quote(url)} /var/log/fastapi/{app}").stdout).splitlines()


def test_the_app_itself_knows_the_client(host, wait_for) -> None:
    """Shop wants its server's own log."""
    path = marked("/version")
    options = ("--interface", "127.0.0.5", "--header", "X-Forwarded-For: 192.0.2.7")
    assert ask(host, f"http://shop.example.com{path}", *options).status == 200
    wait_for(lambda: app_log_entries(host, "shop", path), 5, "the line of shop's own log")
    assert "192.0.2.7" in app_log_entries(host, "shop", path)[0]


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://orders.example.com", ()),
        ("http://shop.example.com", ()),
        ("https://shop.example.com", ("--interface", "127.0.0.5", "--header", "X-Forwarded-Proto: https")),
    ],
)
def test_the_app_itself_knows_the_scheme(host, url, options) -> None:
    """By where it sends the client that asks with a slash too many."""
    asked = f"{url.replace('https', 'http') if options else url}/version/"
    answer = ask(host, asked, *options)
    assert (answer.status, answer.header("Location")) == (307, f"{url}/version")


def test_only_websockets_are_upgraded(host) -> None:
    plain = ask(host, "http://probe.example.com/").json()["headers"]
    assert "connection" not in plain
    options = ("--http1.1", "--header", "Connection: Upgrade", "--header", "Upgrade: h2c")
    assert "upgrade" not in ask(host, "http://probe.example.com/", *options).json()["headers"]
    options = ("--http1.1", "--header", "Connection: Upgrade", "--header", "Upgrade: websocket")
    seen = ask(host, "http://probe.example.com/", *options).json()["headers"]
    assert (seen["connection"], seen["upgrade"]) == ("upgrade", "websocket")


def test_a_websocket_echoes(host) -> None:
    script = """
import asyncio, ssl, websockets
async def main():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with websockets.connect("wss://orders.example.com/ws", ssl=context, host="127.0.0.1", proxy=None) as ws:
        await ws.send("hello")
        print(await ws.recv())
asyncio.run(main())
"""
    interpreter = host.check_output("readlink -f /opt/fastapi/apps/orders/current/venv") + "/bin/python"
    assert python(host, script, interpreter) == "hello"


@pytest.mark.parametrize(
    ("path", "accept", "streamed"),
    [
        ("/events", "text/event-stream", True),
        ("/accelerated-events", "*/*", True),
        # The proof that these would be held back.
        ("/events", "*/*", False),
    ],
)
def test_an_event_stream_is_passed_on_as_it_comes(host, path, accept, streamed) -> None:
    script = f"""
import http.client, time
connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=20)
start = time.monotonic()
connection.request("GET", "{path}", headers={{"Host": "probe.example.com", "Accept": "{accept}"}})
response = connection.getresponse()
line = response.readline()
print(time.monotonic() - start, line.decode().strip(), response.read().decode().split())
"""
    first, *rest = python(host, script).split(" ", 1)
    assert rest == ["data: 0 ['data:', '1', 'data:', '2']"]
    assert (float(first) < 0.4) == streamed


def test_an_event_stream_may_be_asked_for_with_a_body(host) -> None:
    options = ("--header", "Accept: application/json, text/event-stream", "--data", "x=1")
    answer = ask(host, "http://probe.example.com/", *options)
    assert answer.json()["method"] == "POST"
    assert answer.json()["headers"]["content-length"] == "3"


def test_a_request_that_changes_something_is_never_sent_twice(host) -> None:
    """The connection to the app is kept, and breaks under the request."""
    counts = {}
    for method in ("POST", "GET"):
        counts[method] = []
        for _attempt in range(5):
            for _warm in range(3):
                ask(host, "http://probe.example.com/")
            url = marked("/die")
            answer = ask(host, f"http://probe.example.com{url}", "--request", method)
            assert answer.status == 502
            counts[method].append(ask(host, f"http://probe.example.com/count?of={url}").json())
    assert set(counts["POST"]) == {1}
    # The proof that connections were kept: what may be sent again was.
    assert 2 in counts["GET"], counts


# --- what nginx does by itself


def test_a_body_too_large_is_refused(host) -> None:
    host.check_output("sh -c 'head -c 10240 /dev/zero > /srv/fits; head -c 10241 /dev/zero > /srv/large'")
    assert ask(host, "http://probe.example.com/", "--data-binary", "@/srv/fits").status == 200
    assert ask(host, "http://probe.example.com/", "--data-binary", "@/srv/large").status == 413


def test_too_many_requests_are_refused(host) -> None:
    time.sleep(4)
    # One after the other in one call, well within a second.
    statuses = host.check_output(
        "curl --silent --output /dev/null --write-out '%{http_code} ' --connect-to ::127.0.0.1: "
        "'http://limited.example.com/?[1-8]'"
    )
    assert statuses.split() == ["200"] * 3 + ["429"] * 5
    assert ask(host, "http://probe.example.com/").status == 200


def test_answers_are_compressed(host) -> None:
    url = "https://orders.example.com/openapi.json"
    plain = ask(host, url)
    assert plain.header("Content-Encoding") is None
    packed = host.check_output(
        f"curl --silent --insecure --connect-to ::127.0.0.1: --header 'Accept-Encoding: gzip' {url} | gzip -d"
    )
    assert json.loads(packed) == plain.json()


def test_static_files(host) -> None:
    answer = ask(host, "https://orders.example.com/static/hello.css")
    assert (answer.status, answer.body.strip()) == (200, "p { color: green }")
    assert answer.header("Content-Type") == "text/css"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert ask(host, "https://orders.example.com/static/../health").status == 200
    assert fails(host, "https://orders.example.com/static../acme/", "--path-as-is", "--fail") != 0


@pytest.mark.parametrize("url", ["/assets.v1", "/.assets"])
def test_static_files_of_a_directory_with_other_things_in_it(host, url) -> None:
    base = f"https://orders.example.com{url}"
    assert ask(host, f"{base}/hello.css").body.strip() == "p { color: red }"
    assert ask(host, f"{base}/fonts/a.b..woff").status == 200


def test_static_files_of_the_live_release(host) -> None:
    assert ask(host, "https://orders.example.com/code/main.py").status == 200


@pytest.mark.parametrize("url", ["/assets.v1", "/.assets"])
def test_no_dot_file_is_served(host, url) -> None:
    for path in (".env", ".git/config", ".git/", "fonts/.cache/font", "%2eenv", "fonts/..//.env", ".%67it/config"):
        answer = ask(host, f"https://orders.example.com{url}/{path}", "--path-as-is")
        assert answer.status == 404, path


def test_no_link_below_a_static_directory_is_followed(host) -> None:
    for path in ("assets.v1/passwd", "assets.v1/etc/passwd", "assets.v1/copy.css", "linked/hello.css"):
        answer = ask(host, f"https://orders.example.com/{path}")
        assert answer.status in (403, 404), path
        assert "root:" not in answer.body


def test_an_app_can_not_put_a_link_in_the_place_of_a_static_directory(host) -> None:
    data = "/opt/fastapi/apps/orders/shared/data"
    host.check_output(f"mkdir -p {data}/media")
    try:
        host.check_output(f"sh -c 'echo public > {data}/media/passwd'")
        assert ask(host, "https://orders.example.com/media/passwd").body.strip() == "public"
        host.check_output(f"rm -r {data}/media")
        host.check_output(f"ln -s /etc {data}/media")
        assert ask(host, "https://orders.example.com/media/passwd").status in (403, 404)
    finally:
        host.check_output(f"rm -r {data}")


def test_security_headers_are_on_every_answer_of_nginx(host) -> None:
    for url in ("https://orders.example.com/health", "https://orders.example.com/none", "http://down.example.com/"):
        answer = ask(host, url)
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("X-Frame-Options") == "SAMEORIGIN"
        assert answer.header("Referrer-Policy") == "strict-origin-when-cross-origin"
        assert answer.header("X-Request-ID")
        assert answer.header("Server") == "nginx"


def test_headers_of_the_app_go_before(host) -> None:
    answer = ask(host, "http://probe.example.com/own")
    assert answer.header("X-Frame-Options") == "DENY"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    # One for both, and that is the one in the log.
    assert answer.header("X-Request-ID") != "mine"


@pytest.mark.parametrize("options", [(), ("--data", "x=1"), ("--header", "Accept: text/event-stream")])
def test_an_app_that_is_down(host, options) -> None:
    answer = ask(host, "http://down.example.com/orders", *options)
    assert (answer.status, answer.header("Retry-After")) == (502, "60")
    assert "not available" in answer.body


def test_errors_of_the_app_are_its_own(host) -> None:
    answer = ask(host, "http://probe.example.com/unavailable")
    assert (answer.status, answer.json(), answer.header("Retry-After")) == (503, "the app's own words", None)


def test_the_log_tells_the_request(host) -> None:
    url = marked("/version")
    answer = ask(host, f"https://orders.example.com{url}", "--user-agent", 'a "quoted" \\ agent')
    entry = json.loads(log_entry(host, "orders", url))
    assert entry["request_id"] == answer.header("X-Request-ID")
    assert entry["user_agent"] == 'a "quoted" \\ agent'
    assert (entry["method"], entry["uri"], entry["status"], entry["client"]) == ("GET", url, 200, "127.0.0.1")
    assert (entry["scheme"], entry["host"], entry["upstream_status"]) == ("https", "orders.example.com", "200")
    assert 0 <= float(entry["upstream_time"]) <= entry["request_time"] + 0.01 < 5
    assert 0 <= float(entry["upstream_connect_time"]) <= float(entry["upstream_time"])


def test_a_request_has_one_line_in_one_log(host, wait_for) -> None:
    """But where the server's own log is wanted, as shop's is."""
    url = marked("/version")
    assert ask(host, f"https://orders.example.com{url}").status == 200
    assert ask(host, f"http://shop.example.com{url}").status == 200
    # The proof that a line would be there by then.
    wait_for(lambda: app_log_entries(host, "shop", url), 5, "the line of shop's own log")
    assert len(app_log_entries(host, "shop", url)) == 1
    assert app_log_entries(host, "orders", url) == []
    # What the app itself writes is there as ever.
    assert app_log_entries(host, "orders", "orders: started: version")
    for app in ("orders", "shop"):
        assert len(log_entry(host, app, url).splitlines()) == 1


@pytest.mark.parametrize("app", ["orders", "shop"])
def test_the_log_names_the_slot_that_answered_and_the_client_does_not_see_it(host, app) -> None:
    live = f"/run/fastapi/{app}/live.sock"
    slot = host.check_output(f"readlink {live}").removesuffix("/app.sock")
    direct = host.check_output(f"curl --silent --include --unix-socket {live} http://{app}.example.com/version")
    assert Answer(direct).header("X-Fastapi-Slot") == slot
    scheme = "https" if app == "orders" else "http"
    for path in ("/version", "/none"):
        url = marked(path)
        assert ask(host, f"{scheme}://{app}.example.com{url}").header("X-Fastapi-Slot") is None
        assert json.loads(log_entry(host, app, url))["slot"] == slot


def test_the_slot_is_empty_where_none_has_answered(host) -> None:
    for url, app in (("http://probe.example.com/", "probe"), ("http://down.example.com/", "down")):
        path = marked("")
        ask(host, f"{url}{path}")
        assert json.loads(log_entry(host, app, path))["slot"] == "", app


def test_what_an_app_says_of_slots_stays_in_the_log_as_well(host) -> None:
    url = marked("/slot")
    answer = ask(host, f"http://probe.example.com{url}")
    assert (answer.status, answer.header("X-Fastapi-Slot")) == (200, None)
    assert json.loads(log_entry(host, "probe", url))["slot"] == 'a "quoted" slot'


NUMBER = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("url", ["https://orders.example.com/health", "https://orders.example.com/events"])
def test_who_asks_from_the_host_learns_the_way(host, url) -> None:
    answer = ask(host, url, "--header", f"X-Fastapi-Probe: {NUMBER}", "--header", "Accept: text/event-stream")
    way = f"{NUMBER} fastapi_probe-orders unix:/run/fastapi/orders/live.sock"
    assert answer.header("X-Fastapi-Probe") == way


def test_nobody_else_learns_the_way(host) -> None:
    url = "http://probe.example.com/"
    assert ask(host, url).header("X-Fastapi-Probe") is None
    assert ask(host, url, "--header", "X-Fastapi-Probe: mine").header("X-Fastapi-Probe") is None
    # By the host's other address, and through the proxy that is trusted.
    address = str(host.check_output("hostname -I")).split()[0]
    number = ("--header", f"X-Fastapi-Probe: {NUMBER}")
    assert ask(host, url, *number, address=address).header("X-Fastapi-Probe") is None
    assert ask(host, url, *number, "--interface", "127.0.0.5").header("X-Fastapi-Probe") is None
    # Nor does the app, which can't answer in nginx's place.
    assert "x-fastapi-probe" not in ask(host, url, *number).json()["headers"]
    assert ask(host, "http://probe.example.com/own", *number).header("X-Fastapi-Probe") == (
        f"{NUMBER} fastapi_probe-probe 127.0.0.1:9200"
    )


def test_status_is_on_loopback_alone(host) -> None:
    url = "http://{}:8008/nginx_status"
    assert "Active connections" in host.check_output(f"curl --silent --fail {url.format('127.0.0.1')}")
    listening = [row.split()[3] for row in host.check_output("ss -Hltn").splitlines()]
    assert [place for place in listening if place.endswith(":8008")] == ["127.0.0.1:8008"]
    assert {place.rpartition(":")[2] for place in listening if not place.startswith("127.")} == {"80", "443"}


def test_no_warning_of_nginx(host) -> None:
    done = host.run("nginx -t")
    assert done.rc == 0
    assert "warn" not in done.stderr


# --- changes


def pids(hosts) -> list[str]:
    return [host.check_output("systemctl show --property MainPID nginx") for host in hosts]


def test_what_nginx_refuses_replaces_nothing(play, hosts) -> None:
    before = pids(hosts)
    headers = json.dumps({"nginx_security_headers": {"X-Bad": "$nonsense"}})
    done = play(ROLE_PLAYBOOK, "--extra-vars", headers)
    assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
    assert re.search(r'Module failed: [^\n]*\[emerg\] \S+ unknown "nonsense" variable', " ".join(done.output.split()))
    assert pids(hosts) == before
    for host in hosts:
        assert "nonsense" not in host.file("/etc/nginx/conf.d/fastapi.conf").content_string
        assert ask(host, "https://orders.example.com/health").header("X-Frame-Options") == "SAMEORIGIN"


def test_what_others_put_beside_is_checked_too(play, hosts) -> None:
    for host in hosts:
        host.check_output("sh -c 'echo \"upstream fastapi-orders { server 127.0.0.1:1; }\" > /etc/nginx/conf.d/a.conf'")
    try:
        done = play(ROLE_PLAYBOOK, "--extra-vars", "nginx_log_format=combined")
    finally:
        for host in hosts:
            host.check_output("rm /etc/nginx/conf.d/a.conf")
    assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
    assert 'duplicate upstream "fastapi-orders" in /etc/nginx/conf.d/fastapi.conf:' in done.output
    assert ask(hosts[0], "https://orders.example.com/health").status == 200


@pytest.fixture
def legacy(hosts):
    """A server that was there before, by hand, under the name that it is given."""

    def serve(text: str, path: str = "/etc/nginx/conf.d/legacy.conf") -> None:
        for host in hosts:
            host.check_output("sh -c %s", f"cat > {path} <<'END'\n{text}\nEND\n")
            host.check_output("nginx -t -q")
            host.check_output("systemctl reload nginx")

    yield serve
    for host in hosts:
        host.check_output("rm -rf /etc/nginx/conf.d/legacy.conf /etc/nginx/sites")
        host.check_output("systemctl reload nginx")


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_a_name_that_somebody_else_serves_is_refused(play, hosts, wait_for, legacy, mode) -> None:
    legacy("server { listen 80; server_name legacy.example.com; return 200 legacy; }")
    apps = [{"name": "late", "server_names": ["legacy.example.com"], "bind": "127.0.0.1:9200"}]
    before = pids(hosts)
    done = play(ROLE_PLAYBOOK, *mode, "--extra-vars", json.dumps({"nginx_apps": apps}))
    assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
    said = " ".join(done.output.split())
    assert (
        "server_name legacy.example.com on port 80: app late has it, and so has /etc/nginx/conf.d/legacy.conf" in said
    )
    for host in hosts:
        wait_for(
            lambda host=host: ask(host, "http://legacy.example.com/").body == "legacy", 5, "the legacy server answers"
        )
        assert ask(host, "https://orders.example.com/health").status == 200
    assert pids(hosts) == before


def test_a_name_that_comes_in_by_another_file_is_refused_before_the_reload(play, hosts, wait_for, legacy) -> None:
    """Only nginx itself knows what a file includes."""
    for host in hosts:
        host.check_output("mkdir /etc/nginx/sites")
    legacy("server { listen 80; server_name legacy.example.com; return 200 legacy; }", "/etc/nginx/sites/legacy")
    legacy("include /etc/nginx/sites/*;")
    apps = [{"name": "late", "server_names": ["legacy.example.com"], "bind": "127.0.0.1:9200"}]
    done = play(ROLE_PLAYBOOK, "--extra-vars", json.dumps({"nginx_apps": apps}))
    assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
    said = " ".join(done.output.split())
    assert "server_name legacy.example.com on 0.0.0.0:80: an app has it, and so has /etc/nginx/sites/legacy" in said
    for host in hosts:
        wait_for(
            lambda host=host: ask(host, "http://legacy.example.com/").body == "legacy", 5, "the legacy server answers"
        )


def test_a_name_that_is_added_later_is_found(play, host_names, legacy) -> None:
    legacy("server { listen 80; server_name probe.example.com; return 200 legacy; }")
    done = play(ROLE_PLAYBOOK)
    assert [row["failed"] for row in done.recap.values()] == [1] * len(host_names), done.output
    assert "server_name probe.example.com on port 80" in " ".join(done.output.split())


def test_a_hand_made_configuration_is_not_replaced_unasked(play, hosts) -> None:
    theirs = "server { listen 8081; server_name theirs.example.com; return 200 theirs; }"
    for host in hosts:
        host.check_output(f"sed -i 's|^    include conf.d/|    {theirs}\\n&|' /etc/nginx/nginx.conf")
        host.check_output("systemctl reload nginx")
    before = [host.file("/etc/nginx/nginx.conf").content for host in hosts]
    for mode in ([], ["--check"]):
        done = play(ROLE_PLAYBOOK, *mode)
        assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
        said = " ".join(done.output.split())
        assert "by itself: server theirs.example.com." in said
        assert "nginx_existing to replace" in said
    assert [host.file("/etc/nginx/nginx.conf").content for host in hosts] == before
    done = play(ROLE_PLAYBOOK, "--extra-vars", "nginx_existing=replace")
    assert done.status == 0, done.output
    for host, text in zip(hosts, before, strict=True):
        assert host.file("/etc/nginx/nginx.conf.replaced").content == text
        assert b"theirs" not in host.file("/etc/nginx/nginx.conf").content
        host.check_output("rm /etc/nginx/nginx.conf.replaced")
    assert play(ROLE_PLAYBOOK).changed() == 0


def test_a_reload_that_fails_is_told(play, hosts) -> None:
    """nginx -t does not mind an address in use, and systemctl reload does not tell of it."""
    for host in hosts:
        host.check_output("systemd-run --unit=squatter /usr/bin/python3 -m http.server --bind 127.0.0.1 8010")
        host.check_output("timeout 10 sh -c 'until ss -Hltn | grep -q :8010; do sleep 0.1; done'")
    try:
        done = play(ROLE_PLAYBOOK, "--extra-vars", "nginx_status_port=8010")
    finally:
        for host in hosts:
            host.run("systemctl stop squatter")
    assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
    assert "bind() to 127.0.0.1:8010 failed (98: Address already in use)" in " ".join(done.output.split())
    assert ask(hosts[0], "https://orders.example.com/health").status == 200
    done = play(ROLE_PLAYBOOK)
    assert done.status == 0, done.output


def test_what_cannot_work_is_refused_before_anything(play, host_names) -> None:
    apps = [{"name": "a", "server_names": ["a.example.com"], "tls": {"certificate": "/a.crt"}}]
    done = play(ROLE_PLAYBOOK, "--extra-vars", json.dumps({"nginx_apps": apps}))
    assert [row["failed"] for row in done.recap.values()] == [1] * len(host_names), done.output
    assert "app a: tls has a certificate and no key: set tls.key or tls.key_content" in " ".join(done.output.split())


def test_maintenance_and_back(play, hosts, wait_for) -> None:
    before = pids(hosts)
    for host in hosts:
        host.check_output("cp -a /etc/nginx /srv/before")
    done = play(ROLE_PLAYBOOK, "--extra-vars", json.dumps({"nginx_maintenance": True, "nginx_log_format": "combined"}))
    assert done.status == 0, done.output
    for host in hosts:
        for path in ("/version", "/static/hello.css", "/ws"):
            answer = ask(host, f"https://orders.example.com{path}")
            assert (answer.status, answer.header("Retry-After")) == (503, "60")
            assert "not available" in answer.body
            assert answer.header("X-Content-Type-Options") == "nosniff"
        assert ask(host, "https://orders.example.com/orders", "--data", "x=1").status == 503
        url = marked("/health")
        healthy = ask(host, f"https://orders.example.com{url}")
        assert (healthy.status, healthy.header("Retry-After")) == (200, None)
        assert ask(host, "http://orders.example.com/.well-known/acme-challenge/token").status == 200
        entry = log_entry(host, "orders", url)
        request_id = healthy.header("X-Request-ID")
        assert re.search(
            r'^127\.0\.0\.1 - - \[.*\] "GET .* HTTP/2.0" 200 \d+ "-" "curl.*" '
            rf'{request_id} [\d.]+ [\d.]+ [\d.]+ "(blue|green)"$',
            entry,
        )
        # As a run would leave it that is cut off before nginx has read what it wrote.
        host.check_output("sh -c 'rm -r /etc/nginx && mv /srv/before /etc/nginx'")
    for arguments in (("--check",), ()):
        done = play(ROLE_PLAYBOOK, *arguments)
        assert done.status == 0, done.output
        # That it has to be read, and that it is.
        assert done.changed() == 2 * len(hosts), done.output
    for host in hosts:
        wait_for(
            lambda host=host: ask(host, "https://orders.example.com/version").status == 200, 5, "out of maintenance"
        )
    assert play(ROLE_PLAYBOOK).changed() == 0
    # Reloaded, not restarted.
    assert pids(hosts) == before


def test_an_app_that_is_gone_leaves_nothing_and_the_others_stay(play, hosts, scenario_apps) -> None:
    apps = [{"name": "probe", "server_names": ["probe.example.com"], "bind": "127.0.0.1:9200"}]
    key = hosts[0].file("/etc/nginx/fastapi/tls/orders.key").content_string.splitlines()[1]
    done = play(ROLE_PLAYBOOK, "--diff", "-vvv", "--extra-vars", json.dumps({"nginx_apps": apps}))
    assert done.status == 0, done.output
    assert key not in done.output
    for host in hosts:
        assert host.file("/etc/nginx/fastapi/tls").listdir() == []
        assert fails(host, "https://orders.example.com/health") == 35
        assert ask(host, "http://probe.example.com/").status == 200
    shown = play(ROLE_PLAYBOOK, "--check", "--diff", "-vvv")
    assert shown.status == 0, shown.output
    assert key not in shown.output
    assert shown.changed() == 2 * len(hosts)
    assert play(ROLE_PLAYBOOK).status == 0
    for host in hosts:
        assert ask(host, "https://orders.example.com/health").status == 200


def test_a_stopped_nginx_is_started(play, hosts) -> None:
    for host in hosts:
        host.check_output("systemctl disable --now nginx")
    done = play(ROLE_PLAYBOOK)
    assert done.status == 0, done.output
    assert done.changed() == len(hosts)
    for host in hosts:
        assert host.service("nginx").is_running
        assert host.service("nginx").is_enabled


# --- what a container has not got: that it is asked for


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_a_port_that_is_taken_is_refused_before_anything(play, hosts, mode) -> None:
    for host in hosts:
        host.check_output("systemctl stop nginx")
        host.check_output("systemd-run --unit=squatter /usr/bin/python3 -m http.server 80")
        host.check_output("timeout 10 sh -c 'until ss -Hltn | grep -q :80; do sleep 0.1; done'")
    try:
        done = play(ROLE_PLAYBOOK, *mode)
    finally:
        for host in hosts:
            host.run("systemctl stop squatter")
            host.check_output("systemctl start nginx")
    assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
    assert re.search(r"taken is port 80 by process \d+ \(python3\S*\) of user root", " ".join(done.output.split()))


def test_a_killed_nginx_comes_back(hosts, wait_for) -> None:
    for host in hosts:
        master = host.check_output("systemctl show --property MainPID --value nginx")
        host.check_output(f"kill -9 {master}")
        wait_for(
            lambda host=host, master=master: (
                host.check_output("systemctl show --property MainPID --value nginx") not in ("0", master)
                and host.run("curl --silent --output /dev/null http://127.0.0.1:8008/nginx_status").rc == 0
            ),
            10,
            "another nginx answers",
        )
        assert ask(host, "https://orders.example.com/health").status == 200


def test_selinux_would_get_the_type_of_the_sockets(play, host_names) -> None:
    done = play(str(SCENARIO / "selinux.yml"), "-vvv", "--extra-vars", "tasks_file=selinux")
    assert [row["failed"] for row in done.recap.values()] == [1] * len(host_names), done.output
    assert set(re.findall(r"target: (\S+)", done.output)) == {
        "/var/run/fastapi(/.*)?",
        "/run/fastapi(/.*)?",
    }
    assert "setype: httpd_var_run_t" in done.output


def test_selinux_asks_for_its_tools(play, host_names) -> None:
    done = play(str(SCENARIO / "selinux.yml"), "--extra-vars", "tasks_file=main")
    assert [row["failed"] for row in done.recap.values()] == [1] * len(host_names), done.output
    assert "policycoreutils" in done.output


def test_a_firewalld_that_runs_is_asked(play, hosts) -> None:
    for host in hosts:
        host.check_output("systemd-run --unit=firewalld sleep 120")
    try:
        done = play(ROLE_PLAYBOOK)
    finally:
        for host in hosts:
            host.run("systemctl stop firewalld")
    assert [row["failed"] for row in done.recap.values()] == [1] * len(hosts), done.output
    assert "firewall" in done.output.partition("firewalld | Open the ports")[2]
