"""Every program of the README runs and prints what it says there.

Against a fake sidecar, or the real one at SPENDFUSE_TEST_URL, with `deploy/sample/first.yaml` in force.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Iterator

import pytest
import spendfuse
from fake import FakeSidecar

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", README, re.DOTALL)
NAMES = [re.findall(r"^## (.*)$", README[: README.index(program)], re.MULTILINE)[-1] for program, _ in PROGRAMS]


@pytest.fixture
def sidecar(monkeypatch: Any, provider: Any) -> Iterator[None]:
    real = os.environ.get("SPENDFUSE_TEST_URL")
    fake = None if real else FakeSidecar()
    if fake is not None:
        fake.prices, fake.limit = {"gpt-4o-mini": "0.00021", "gpt-4o": "0.0035"}, "0.05"
    for name, value in {
        "SPENDFUSE_URL": real or (fake.url if fake else ""),
        "OPENAI_BASE_URL": provider.url + "/v1",
        "ANTHROPIC_BASE_URL": provider.url,
        "GOOGLE_GEMINI_BASE_URL": provider.url,
        "OPENAI_API_KEY": "k",
        "ANTHROPIC_API_KEY": "k",
        "GEMINI_API_KEY": "k",
    }.items():
        monkeypatch.setenv(name, value)
    provider.pause = 0.01
    monkeypatch.setattr(spendfuse, "_default", None)
    yield
    spendfuse.shutdown(5)
    if fake is not None:
        fake.stop()


def test_every_program_of_the_readme_is_run_here() -> None:
    assert len(PROGRAMS) == README.count("```python") == 8


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=NAMES)
def test_a_program_prints_what_the_readme_says(program: str, printed: str, sidecar: Any, capsys: Any) -> None:
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    seen = capsys.readouterr().out
    expected = "".join(".*" if part == "…" else re.escape(part) for part in re.split("(…)", printed))
    assert re.fullmatch(expected, seen), f"{seen}\n-- where the README says\n{printed}"
