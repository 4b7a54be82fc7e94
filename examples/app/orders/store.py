"""Orders in the memory of one worker process."""

from uuid import UUID, uuid4

from pydantic import BaseModel, Field


class OrderRequest(BaseModel):
    item: str = Field(min_length=1, max_length=100)
    quantity: int = Field(default=1, ge=1, le=1000)


class Order(OrderRequest):
    id: UUID


class OrderStore:
    """Keeps the newest orders only, so that a load test cannot fill the memory."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._orders: dict[UUID, Order] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, request: OrderRequest) -> Order:
        order = Order(id=uuid4(), item=request.item, quantity=request.quantity)
        self._orders[order.id] = order
        if len(self._orders) > self._limit:
            del self._orders[next(iter(self._orders))]
        return order

    def get(self, order_id: UUID) -> Order | None:
        return self._orders.get(order_id)

    def newest_first(self) -> list[Order]:
        return list(reversed(self._orders.values()))

    def close(self) -> None:
        self._orders.clear()
