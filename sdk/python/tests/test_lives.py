"""What is told counts once, through sidecars that die. (Processes that fork and crash: `test_delivery.py`; the
real sidecar, killed amid 100,000 events: `test_real.py`.)"""

from __future__ import annotations

import os
import random
import time
from typing import Any

from fake import FakeSidecar
from spendfuse import Spendfuse
from spendfuse._ids import fresh

COUNT = 20_000


class Mortal(FakeSidecar):
    """As one whose process is killed: nobody listens, and its connections are cut, also that whose batch it has
    just put on its disk."""

    is_dead = False

    def answer(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        answer = super().answer(path, body) if not self.is_dead else (0, {})
        return (0, {}) if self.is_dead else answer

    def die(self) -> None:
        self.is_dead = True
        self.stop()


def test_twenty_thousand_events_through_a_sidecar_that_dies_twice_count_once_each() -> None:
    lives = [Mortal()]
    sf = Spendfuse(lives[0].url, queue_size=COUNT)
    for number in range(COUNT):
        sf.track(model="m", usage={"input_tokens": number}, id=f"e-{number}")
    for enough in (1_000, COUNT // 2):
        deadline = time.monotonic() + 20
        while sf.delivery.delivered < enough and time.monotonic() < deadline:
            time.sleep(0.001)
        lives[-1].loses_answers = 1
        while lives[-1].loses_answers and time.monotonic() < deadline:
            time.sleep(0.001)
        lives[-1].die()
        time.sleep(0.1)
        lives.append(Mortal(port=lives[0].port))
    assert sf.flush(30)
    lives[-1].stop()
    told = [name for life in lives for name in life.ids]
    assert set(told) == {f"e-{number}" for number in range(COUNT)}
    # Some came twice, because nobody knew whether they had arrived.
    assert len(told) > COUNT
    assert (sf.delivery.delivered, sf.delivery.dropped, sf.delivery.rejected) == (COUNT, 0, 0)


def test_forked_processes_and_apps_that_seed_their_chance_give_no_name_twice() -> None:
    random.seed(7)
    own = fresh()
    random.seed(7)
    assert fresh() != own
    names = []
    for _ in range(2):
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writes, fresh().encode())
            os._exit(0)
        os.waitpid(child, 0)
        names.append(os.read(reads, 64).decode())
        os.close(reads), os.close(writes)
    assert len({own, fresh(), *names}) == 4 and {len(name) for name in names} == {32}
