#!/usr/bin/env python3
"""Runs the examples against a provider that says "Hello" (1,000 tokens in, 100 out), and compares what
each prints with what its first lines say it prints; `…` stands for anything.

    python examples/run.py [NAME…]

SPENDFUSE_URL and SPENDFUSE_KAFKA_BROKERS say where a sidecar and Kafka are, with `deploy/sample/first.yaml`
in force. NODE_MODULES, NEXT_MODULES and SDK_MODULES are the folders of packages that `scripts/npm-modules`
prints for `examples/node`, `examples/nextjs` and `sdk/typescript`. Where they are not said, or Go is not
there or cannot get its modules, their examples are skipped.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SDK = HERE.parent / "sdk" / "python"
sys.path[:0] = [str(SDK / "tests"), str(SDK / "src")]

import spendfuse  # noqa: E402
from stub import Provider  # noqa: E402

ENDINGS = (".py", ".mjs", ".go", ".js")
INPUT = {"chat": "Say hello\n" * 40}
#: A producer prints nothing of what its events come to: the customer, and what it has spent then.
COUNTED = {"python/kafka_producer.py": "c-python", "node/kafka-producer.mjs": "c-node", "go/kafka_producer.go": "c-go"}
SPENT = "0.035"
MOST_LINES = 60
SKIPPED = "SKIPPED: its language or its packages are not there"
BUILD_PATIENCE = 120
PATIENCE = 180
FIGURES_PATIENCE = 70


def printed_by_its_own_words(text: str) -> str:
    """The lines below `Prints:`, which are indented by four more than it."""
    lines = iter(re.sub(r"^ *(//|#) ?", "", line).expandtabs(4) for line in text.splitlines())
    for line in lines:
        if line.strip() == "Prints:":
            break
    said: list[str] = []
    for line in lines:
        if not line and not said:
            # gofmt puts one there.
            continue
        if not line.startswith("    "):
            break
        said.append(line[4:] + "\n")
    return "".join(said)


def command_of(path: Path, scratch: Path) -> list[str] | None:
    """How an example is run; `None` where what it needs is not there."""
    if path.suffix == ".py":
        return [sys.executable, str(path)]
    if path.suffix == ".mjs":
        # A module looks for others from where it lies.
        if "NODE_MODULES" not in os.environ:
            return None
        modules = scratch / "node_modules"
        if not modules.exists():
            modules.symlink_to(os.environ["NODE_MODULES"])
        return ["node", shutil.copy(path, scratch)]
    if path.suffix == ".js":
        if not {"NEXT_MODULES", "SDK_MODULES"} <= set(os.environ):
            return None
        return [sys.executable, str(HERE / "serve_next.py"), str(scratch)]
    program = scratch / "producer"
    try:
        build = ["go", "build", "-o", str(program), "."]
        built = subprocess.run(build, cwd=path.parent, capture_output=True, text=True, timeout=BUILD_PATIENCE)
    except FileNotFoundError:
        return None
    if built.returncode != 0 and "download" in built.stderr + built.stdout:
        return None
    return [str(program)] if built.returncode == 0 else ["sh", "-c", f"echo {shlex.quote(built.stderr)}; exit 1"]


def difference(path: Path, provider: Provider, scratch: Path) -> str | None:
    """What is wrong with an example."""
    text = path.read_text(encoding="utf-8")
    expected = printed_by_its_own_words(text)
    if not expected:
        return "does not say what it prints"
    if len(text.splitlines()) >= MOST_LINES:
        return f"{len(text.splitlines())} lines: no example any more"
    command = command_of(path, scratch)
    if command is None:
        return SKIPPED
    provider.tools, provider.tool = path.stem == "agent", "research"
    environment = {**os.environ, "OPENAI_BASE_URL": provider.url + "/v1", "OPENAI_API_KEY": "k"}
    environment["PYTHONPATH"] = str(SDK / "src")
    said = INPUT.get(path.stem, "")
    done = subprocess.run(command, input=said, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    pattern = "".join("(?s:.*)" if part == "…" else re.escape(part) for part in re.split("(…)", expected))
    if done.returncode != 0 or not re.fullmatch(pattern, done.stdout):
        return f"exit code {done.returncode}\n{done.stdout}{done.stderr}-- where it says\n{expected}"
    customer = COUNTED.get(str(path.relative_to(HERE)))
    return None if customer is None else uncounted(customer)


def uncounted(customer: str) -> str | None:
    sf = spendfuse.Spendfuse(workspace=os.environ.get("SPENDFUSE_WORKSPACE", "acme"), check_timeout=5.0)
    deadline = time.monotonic() + FIGURES_PATIENCE
    while True:
        spent = [str(line.spent) for line in sf.check(customer=customer).budgets]
        if spent == [SPENT]:
            return None
        if time.monotonic() > deadline:
            return f"{customer} has spent {spent} instead of {SPENT}"
        time.sleep(0.1)


def main() -> int:
    os.environ.setdefault("SPENDFUSE_WORKSPACE", "acme")
    provider = Provider()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        paths = [*HERE.glob("*/*"), HERE / "nextjs/app/api/chat/route.js"]
        for path in sorted(path for path in paths if path.suffix in ENDINGS):
            if sys.argv[1:] and path.stem not in sys.argv[1:]:
                continue
            problem = difference(path, provider, Path(scratch))
            print(f"{path.relative_to(HERE)}: {problem or 'prints what it says'}", flush=True)
            failed += problem not in (None, SKIPPED)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
