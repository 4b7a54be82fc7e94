#!/usr/bin/env python3
# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded load on one app through its proxy, and an account of every request that failed.

usage: client.py --host NAME [--port 80] --seconds N [--stop FILE] [--marks FILE] [--records FILE] > result.json

Connections: some send GET and POST over kept connections, some open a new one for each request, a few ask for what
takes three seconds, and a few hold websockets over which they send a word each second. It ends after so many seconds,
or when the file of --stop is there. --marks is a file of lines "SECONDS NAME" (of time.time()), which may grow while
this runs: the times of requests are reported for each of these phases. --records is a file for each timed request, as
JSON: its start (of time.time()) and the seconds that it took.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import json
import os
import struct
import sys
import time

KEPT, NEW, SLOW, WEBSOCKETS = 8, 4, 2, 2
TIMEOUT = 30
# Between two requests of one connection, so that the load is steady and not all that the host can bear.
PAUSE = 0.03
BODY = json.dumps({"item": "a book", "quantity": 3}).encode()
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Failed(Exception):
    pass


class Client:
    def __init__(self, options: argparse.Namespace) -> None:
        self.host, self.port = options.host, options.port
        self.deadline = time.time() + options.seconds
        self.stop = options.stop
        self.times: list[tuple[float, float]] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[dict[str, object]] = []
        self.closes: collections.Counter[str] = collections.Counter()
        self.echoes = 0

    @property
    def is_over(self) -> bool:
        return time.time() > self.deadline or bool(self.stop and os.path.exists(self.stop))

    async def run(self) -> None:
        await asyncio.gather(
            *(self.requests(kept=True) for _ in range(KEPT)),
            *(self.requests(kept=False) for _ in range(NEW)),
            *(self.slow() for _ in range(SLOW)),
            *(self.websocket() for _ in range(WEBSOCKETS)),
        )

    async def requests(self, kept: bool) -> None:
        connection = None
        number = 0
        while not self.is_over:
            number += 1
            method, path, body = ("POST", "/orders", BODY) if number % 3 == 0 else ("GET", "/version", b"")
            connection = await self.measured(connection, method, path, body, kept)
            await asyncio.sleep(PAUSE)
        await close(connection)

    async def slow(self) -> None:
        while not self.is_over:
            await close(await self.measured(None, "GET", "/slow?seconds=3", b"", False, timed=False))

    async def measured(self, connection, method, path, body, kept, timed=True):
        kind = f"{method} {'slow' if not timed else 'kept' if kept else 'new'}"
        start = time.time()
        try:
            connection, status = await asyncio.wait_for(self.request(connection, method, path, body, kept), TIMEOUT)
            if not 200 <= status < 300:
                raise Failed(f"status {status}")
            self.counts[kind] += 1
            if timed:
                self.times.append((start, time.time() - start))
            if kept:
                return connection
        except (OSError, EOFError, ValueError, asyncio.TimeoutError, Failed) as error:
            self.failed(kind, error, start)
        await close(connection)
        return None

    def failed(self, kind: str, error: Exception, start: float) -> None:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        self.failures.append({"kind": kind, "reason": reason, "at": round(start, 3)})

    async def request(self, connection, method, path, body, kept):
        if connection is None:
            connection = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = connection
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        if not kept:
            head += "Connection: close\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        status, headers = await read_head(reader)
        await read_body(reader, headers)
        if headers.get("connection") == "close":
            writer.close()
            return None, status
        return connection, status

    async def websocket(self) -> None:
        while not self.is_over:
            start = time.time()
            connection = None
            try:
                connection = await asyncio.wait_for(self.opened(), TIMEOUT)
                await self.echo(*connection)
            except (OSError, EOFError, ValueError, asyncio.TimeoutError, Failed) as error:
                self.failed("websocket", error, start)
                await asyncio.sleep(0.2)
            await close(connection)

    async def opened(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        status, _headers = await read_head(reader)
        if status != 101:
            raise Failed(f"status {status}")
        return reader, writer

    async def echo(self, reader, writer) -> None:
        """A word and its echo each second; in between it hears the other's close."""
        while not self.is_over:
            writer.write(frame(TEXT, b"word"))
            await writer.drain()
            next_word = time.time() + 1
            while True:
                try:
                    opcode, payload = await asyncio.wait_for(read_frame(reader), max(0.01, next_word - time.time()))
                except asyncio.TimeoutError:
                    break
                if opcode == TEXT:
                    self.echoes += 1
                elif opcode == PING:
                    writer.write(frame(PONG, payload))
                elif opcode == CLOSE:
                    self.closes[str(struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else "none")] += 1
                    writer.write(frame(CLOSE, payload[:2]))
                    return

    def result(self, marks: list[tuple[float, str]]) -> dict[str, object]:
        return {
            "requests": sum(self.counts.values()) + len(self.failures),
            "counts": dict(self.counts),
            "failed": len(self.failures),
            "failures": self.failures[:50],
            "websockets": {"echoes": self.echoes, "closes": dict(self.closes)},
            "phases": self.phases(marks),
        }

    def phases(self, marks: list[tuple[float, str]]) -> dict[str, dict[str, float]]:
        """The times of each phase, a phase being all stretches of one name."""
        marks = sorted(marks) or [(0.0, "all")]
        times: dict[str, list[float]] = {}
        for start, duration in self.times:
            name = next((name for at, name in reversed(marks) if at <= start), "start")
            times.setdefault(name, []).append(duration)
        return {
            name: {"requests": len(each), "p50_ms": quantile(each, 0.5), "p99_ms": quantile(each, 0.99)}
            for name, each in times.items()
        }


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


async def read_head(reader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in head[1:] if line)
    }
    return int(head[0].split()[1]), headers


async def read_body(reader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            body += (await reader.readexactly(size + 2))[:size]
            if not size:
                return body
    return await reader.readexactly(int(headers.get("content-length", 0)))


def frame(opcode: int, payload: bytes) -> bytes:
    """A masked frame of less than 126 bytes, as a client sends it."""
    mask = os.urandom(4)
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def read_frame(reader) -> tuple[int, bytes]:
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        length = struct.unpack("!H", await reader.readexactly(2))[0]
    return first & 0x0F, await reader.readexactly(length)


async def close(connection) -> None:
    if connection is not None:
        connection[1].close()


def read_marks(path: str) -> list[tuple[float, str]]:
    if not path or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as stream:
        rows = [line.split() for line in stream if line.strip()]
    return [(float(at), name) for at, name in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--stop", default="")
    parser.add_argument("--marks", default="")
    parser.add_argument("--records", default="")
    options = parser.parse_args()
    client = Client(options)
    asyncio.run(client.run())
    if options.records:
        with open(options.records, "w", encoding="utf-8") as stream:
            json.dump([(round(start, 4), round(duration, 6)) for start, duration in client.times], stream)
    json.dump(client.result(read_marks(options.marks)), sys.stdout)


if __name__ == "__main__":
    main()
