"""What `wrap` adds to a call, beside the bare SDK.

    PYTHONPATH=sdk/python/src python sdk/python/benches/overhead.py [CALLS]

The sidecar is at SPENDFUSE_URL (`make up`, then `set -a; . .devstack/env`); the provider is a stub in a
process of its own. Bare and wrapped calls take turns. What is compared is the time of a call without
the provider's part of it, which is measured inside: the client's own work, the check, the event. On a
busy machine the calling thread's processor time says more than the clock.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import spendfuse

CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
WARM_UP = 100
STUB = Path(__file__).resolve().parents[1] / "tests" / "stub.py"
MESSAGES = [{"role": "user", "content": "x" * 2000}]


class Timed:
    """The transport inside, with a clock."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.seconds = self.cpu = 0.0

    def handle_request(self, request: Any) -> Any:
        began, cpu = time.perf_counter(), time.thread_time()
        response = self._inner.handle_request(request)
        response.read()
        self.seconds, self.cpu = time.perf_counter() - began, time.thread_time() - cpu
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


def client(url: str) -> tuple[openai.OpenAI, Timed]:
    made = openai.OpenAI(api_key="k", base_url=url + "/v1")
    http: Any = made._client
    timed = Timed(http._transport)
    http._transport = timed
    http._mounts.clear()
    return made, timed


def call(made: openai.OpenAI, timed: Timed) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.thread_time()
    made.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    took, used = time.perf_counter() - began, time.thread_time() - cpu
    return (took - timed.seconds) * 1000, (used - timed.cpu) * 1000


def main() -> None:
    stub = subprocess.Popen([sys.executable, str(STUB)], stdout=subprocess.PIPE, text=True)
    try:
        assert stub.stdout is not None
        url = stub.stdout.readline().strip()
        bare, wrapped = client(url), client(url)
        sf = spendfuse.Spendfuse(workspace="bench", check_timeout=1.0)
        sf.wrap(wrapped[0])
        times: dict[str, list[tuple[float, float]]] = {"bare": [], "wrapped": []}
        for number in range(WARM_UP + CALLS):
            for name, one in (("bare", bare), ("wrapped", wrapped)):
                took = call(*one)
                if number >= WARM_UP:
                    times[name].append(took)
        sf.flush(30)
        print(f"{'ms beside the provider':24} {'p50':>7} {'p99':>7} {'CPU p50':>9} {'CPU p99':>9}")
        rows = {name: [sorted(column) for column in zip(*rows)] for name, rows in times.items()}
        rows["added"] = [[w - b for b, w in zip(*columns)] for columns in zip(rows["bare"], rows["wrapped"])]
        for name, (wall, used) in rows.items():
            print(f"{name:24} {at(wall, 50):7.3f} {at(wall, 99):7.3f} {at(used, 50):9.3f} {at(used, 99):9.3f}")
        print(f"{sf.delivery.delivered} events safe, {sf.sidecar.undecided} checks without an answer")
    finally:
        stub.kill()


def at(ranked: list[float], percent: int) -> float:
    """Of values by rank; "added" is the difference of equal ranks."""
    return ranked[len(ranked) * percent // 100]


main()
