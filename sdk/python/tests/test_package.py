"""What is published: the wheel, in an environment with nothing else, and its types."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What an app with strict types may write; `reveal_type` tells what it gets.
TYPED = """
import asyncio
import httpx
import spendfuse

client: httpx.Client = spendfuse.wrap(httpx.Client(), workspace="acme")

@spendfuse.guard(feature="x", customer=lambda user: user)
def work(user: str) -> int:
    return 1

@spendfuse.guard
async def awork() -> str:
    return "x"

number: int = work("u") + spendfuse.guarded_call(lambda: 1, customer="c-1")

async def main() -> str:
    return await awork() + await spendfuse.guarded_call(awork)

with spendfuse.context(customer=7), spendfuse.session(budget="0.50") as run:
    step: spendfuse.StepResult = run.step()
try:
    spendfuse.check(customer="c-1").raise_for_block()
except spendfuse.BudgetExceededError as error:
    print(error.limit, error.resets_at and error.resets_at.year)
asyncio.run(main())
"""

USED = """
import spendfuse, sys
from importlib.metadata import distribution
assert not [one for one in distribution("spendfuse").requires or []]
assert spendfuse.__version__ == distribution("spendfuse").version
sf = spendfuse.configure("http://127.0.0.1:1", exit_timeout=0)
assert sf.check(customer="c-1").allowed and spendfuse.guarded_call(lambda: 7) == 7
from spendfuse.testing import Recorder
recorder = Recorder()
assert recorder.track(model="m", usage={"input_tokens": 1}) == recorder.events[0]["id"]
print(spendfuse.__file__)
"""


def run(*command: Any, **more: Any) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: Any) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_the_wheel_runs_where_nothing_else_is_installed(wheel: Path, tmp_path: Path) -> None:
    assert wheel.name == "spendfuse-0.1.0-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {"spendfuse/py.typed", "spendfuse/LICENSE"} <= set(names)
    assert not [name for name in names if not name.startswith(("spendfuse/", "spendfuse-0.1.0.dist-info/"))]
    environment = tmp_path / "clean"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", wheel)
    assert str(environment) in run(python, "-I", "-c", USED, cwd=tmp_path)


def test_the_package_and_an_app_of_it_are_typed_strictly(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "app.py").write_text(TYPED, encoding="utf-8")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    cache = ("--cache-dir", tmp_path / "cache")
    run(sys.executable, "-m", "mypy", "--strict", *cache, ROOT / "src" / "spendfuse", cwd=ROOT)
    run(sys.executable, "-m", "mypy", "--strict", *cache, "app.py", cwd=tmp_path, env={"MYPYPATH": str(site)})
