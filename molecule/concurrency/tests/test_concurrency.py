"""N requests of a second each, sent at once, take about a second up to the number that each way promises."""

from __future__ import annotations

import json

import pytest

# In one program on the host: how long all took, and how many were answered with 200.
MEASURE = """
import concurrent.futures, json, sys, time, urllib.error, urllib.request

port, count = int(sys.argv[1]), int(sys.argv[2])

def ask(number):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/slow", timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code

with concurrent.futures.ThreadPoolExecutor(count) as pool:
    start = time.monotonic()
    statuses = list(pool.map(ask, range(count)))
    print(json.dumps([time.monotonic() - start, statuses.count(200)]))
"""
# Of a request's second: what starting so many requests on a busy machine may cost on top.
SLACK = 0.9


def measure(host, port: int, count: int) -> tuple[float, int]:
    seconds, answered = json.loads(host.check_output(f"python3 -c '{MEASURE}' {port} {count}"))
    return seconds, answered


@pytest.mark.parametrize(
    ("port", "promised"),
    [
        pytest.param(8001, 4, id="processes: 4 workers"),
        pytest.param(8002, 16, id="threads: 1 worker of 16"),
        pytest.param(8003, 50, id="pseudo-threads: 1 worker of 50"),
        pytest.param(8004, 100, id="coroutines: the class asgi"),
        pytest.param(8005, 50, id="coroutines: the worker of Uvicorn"),
    ],
)
def test_as_many_at_once_as_promised(host, port, promised) -> None:
    seconds, answered = measure(host, port, promised)
    assert answered == promised
    assert 1 <= seconds < 1 + SLACK


@pytest.mark.parametrize(("port", "promised"), [(8001, 4), (8002, 16)])
def test_and_no_more_than_that(host, port, promised) -> None:
    """Twice as many need a second turn, and one more than twice a third."""
    assert 2 <= measure(host, port, 2 * promised)[0] < 2 + SLACK
    assert measure(host, port, 2 * promised + 1)[0] >= 3


def test_a_limit_answers_with_503(host) -> None:
    """Uvicorn turns away what exceeds limit_concurrency, at once."""
    seconds, answered = measure(host, 8005, 120)
    assert 0 < answered < 120
    assert seconds < 1 + SLACK
