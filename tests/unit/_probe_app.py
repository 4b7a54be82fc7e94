"""An app that reports how the process that serves it is really set up. It speaks ASGI and WSGI."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import time
from typing import Any

# Of the access logs that the process has made a record for, with or without a place for it to go.
ACCESS_RECORDS: list[str] = []


def _count(record: logging.LogRecord) -> bool:
    ACCESS_RECORDS.append(record.name)
    return True


for _name in ("gunicorn.access", "uvicorn.access"):
    logging.getLogger(_name).addFilter(_count)


def _objects(module: str, name: str) -> list[Any]:
    kind = getattr(sys.modules.get(module), name, None)
    return [found for found in gc.get_objects() if kind is not None and type(found) is kind]


def _umask() -> str:
    found = os.umask(0)
    os.umask(found)
    return f"{found:04o}"


def report(client: str) -> bytes:
    gunicorn = [config for config in _objects("gunicorn.config", "Config") if config.settings["bind"].get()]
    uvicorn = _objects("uvicorn.config", "Config")
    loop = sys.modules["asyncio"]._get_running_loop() if "asyncio" in sys.modules else None
    facts = {
        "gunicorn": {name: setting.get() for name, setting in gunicorn[-1].settings.items()} if gunicorn else None,
        "uvicorn": vars(uvicorn[-1]) if uvicorn else None,
        "client": client,
        "access_records": ACCESS_RECORDS,
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "cwd": os.getcwd(),
        "umask": _umask(),
        "environment": {name.decode(): value.decode() for name, value in os.environb.items()},
        "loop": type(loop).__module__.split(".")[0] if loop else None,
        "thread": threading.current_thread().name,
        "hooked": getattr(sys.modules[__name__], "hooked", None),
    }
    return json.dumps(facts, default=str).encode()


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/slow":
        time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [report(environ["REMOTE_ADDR"])]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": report((scope["client"] or [""])[0])})


def make() -> Any:
    return asgi
