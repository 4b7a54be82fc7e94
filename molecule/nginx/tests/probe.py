"""Stands behind nginx and tells what reaches it. Runs inside a test host, on the platform's Python."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COUNTS = {}


class Probe(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        COUNTS[self.path] = COUNTS.get(self.path, 0) + 1
        if path == "/die":
            # Takes the request and is gone, as a server that is killed.
            self.close_connection = True
        elif path == "/count":
            self.answer(COUNTS.get(self.path.partition("?of=")[2], 0))
        elif path == "/events":
            self.stream()
        elif path == "/accelerated-events":
            self.stream(("X-Accel-Buffering", "no"))
        elif path == "/own":
            self.answer("mine", ("X-Frame-Options", "DENY"), ("X-Request-ID", "mine"), ("X-Fastapi-Probe", "mine"))
        elif path == "/slot":
            self.answer("mine", ("X-Fastapi-Slot", 'a "quoted" slot'))
        elif path == "/unavailable":
            self.answer("the app's own words", status=503)
        else:
            self.answer({"method": self.command, "headers": {k.lower(): v for k, v in self.headers.items()}})

    do_POST = do_GET

    def answer(self, value, *headers, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, content in [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers]:
            self.send_header(name, content)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, *headers):
        self.send_response(200)
        for name, content in [("Content-Type", "text/event-stream"), ("Connection", "close"), *headers]:
            self.send_header(name, content)
        self.end_headers()
        self.close_connection = True
        for number in range(3):
            self.wfile.write(f"data: {number}\n\n".encode())
            time.sleep(0.5)


servers = [ThreadingHTTPServer(("127.0.0.1", int(port)), Probe) for port in sys.argv[1:]]
threads = [threading.Thread(target=server.serve_forever) for server in servers]
for thread in threads:
    thread.start()
