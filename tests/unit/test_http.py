"""Requests through a proxy that redirects to TLS."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._http import HttpConnection, NoReply, get
from ansible_collections.asgiops.fastapi_host.plugins.module_utils._slots import probe


@contextmanager
def server(location: str = "", tls: ssl.SSLContext | None = None) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(301 if location else 200)
            self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(f"{self.path} of {self.headers['Host']}".encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd.server_port
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-keyout", "k", "-out", "c"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    return context


def test_a_proxy_is_followed_to_tls_for_another_host(tls: ssl.SSLContext) -> None:
    with server(tls=tls) as secure, server(f"https://orders.example:{secure}/up") as plain:
        answer = probe.ask_proxy(f"http://127.0.0.1:{plain}", "/up", "orders.example", 10, "n")
        assert str(answer) == "status 200: /up of orders.example"
        with pytest.raises(NoReply, match=r"no answer in 10 s: .*certificate"):
            get(HttpConnection("127.0.0.1", secure, tls=ssl.create_default_context(), timeout=10), "/")


def test_no_proxy_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert probe.ask_proxy(f"http://127.0.0.1:{port}", "/", "orders.example", 10, "n") is None
