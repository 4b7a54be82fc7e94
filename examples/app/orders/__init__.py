"""The example app of asgiops.fastapi_host."""

__version__ = "1.0.0"
