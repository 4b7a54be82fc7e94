"""The app: `uvicorn orders.main:app`."""

import asyncio
import logging
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import compare_digest
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response, WebSocket, WebSocketDisconnect

from orders import __version__
from orders.settings import Settings
from orders.store import Order, OrderRequest, OrderStore

# Uvicorn and Gunicorn set up their own loggers only; without this the app's lines would be dropped.
logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s: %(message)s")
log = logging.getLogger("orders")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.settings = Settings.from_environment()
    app.state.store = OrderStore()
    log.info("started: version %s, pid %d", __version__, os.getpid())
    try:
        yield
    finally:
        log.info("stopped: version %s, pid %d, %d orders forgotten", __version__, os.getpid(), len(app.state.store))
        app.state.store.close()


app = FastAPI(title="orders", version=__version__, lifespan=lifespan)


def current_store(request: Request) -> OrderStore:
    return request.app.state.store


def require_api_key(request: Request, x_api_key: Annotated[str, Header()] = "") -> None:
    expected: str = request.app.state.settings.api_key
    if not expected:
        raise HTTPException(503, "ORDERS_API_KEY is not set on this host")
    # Bytes, because compare_digest refuses strings that are not ASCII; a header arrives as Latin-1.
    if not compare_digest(x_api_key.encode("latin-1"), os.fsencode(expected)):
        raise HTTPException(401, "The header X-Api-Key is missing or wrong")


Store = Annotated[OrderStore, Depends(current_store)]


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/version")
async def version(request: Request) -> dict[str, str | int]:
    return {
        "version": __version__,
        "greeting": request.app.state.settings.greeting,
        "pid": os.getpid(),
        "python": platform.python_version(),
    }


@app.get("/slow")
async def slow(seconds: Annotated[float, Query(ge=0, le=30)] = 1.0) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.post("/orders", status_code=201)
async def create_order(order: OrderRequest, store: Store, response: Response) -> Order:
    created = store.add(order)
    response.headers["Location"] = f"/orders/{created.id}"
    return created


@app.get("/orders", dependencies=[Depends(require_api_key)])
async def list_orders(store: Store) -> list[Order]:
    return store.newest_first()


@app.get("/orders/{order_id}")
async def read_order(order_id: UUID, store: Store) -> Order:
    order = store.get(order_id)
    if order is None:
        raise HTTPException(404, f"This process knows no order {order_id}")
    return order


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
