"""What the app reads from its environment."""

import os
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Settings:
    greeting: str
    api_key: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> Self:
        return cls(
            greeting=os.environ.get("ORDERS_GREETING", "Hello"),
            api_key=os.environ.get("ORDERS_API_KEY", ""),
        )
