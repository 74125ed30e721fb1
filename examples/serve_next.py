"""Serves the handler in `nextjs` by Next.js in the folder that is the argument, asks it until a customer's
budget is used up, and prints what it answers.

NEXT_MODULES and SDK_MODULES are the folders of what `nextjs` and `sdk/typescript` need.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Next.js compiles a handler at its first request.
PATIENCE = 150
QUESTION = b'{"question": "Say hello"}'


def packed_sdk(scratch: Path) -> Path:
    """The SDK for TypeScript, built."""
    source, built = HERE.parent / "sdk" / "typescript", scratch / "sdk"
    built.mkdir()
    for name in ("package.json", "tsconfig.json", "src", "scripts"):
        (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, built / name)
    (built / "node_modules").symlink_to(os.environ["SDK_MODULES"])
    subprocess.run([built / "scripts" / "build"], check=True, stdout=sys.stderr)
    (built / "node_modules").unlink()
    return built


def served_app(scratch: Path) -> Path:
    app = scratch / "app"
    shutil.copytree(HERE / "nextjs", app)
    (app / "node_modules").mkdir()
    for module in Path(os.environ["NEXT_MODULES"]).iterdir():
        (app / "node_modules" / module.name).symlink_to(module)
    packed_sdk(scratch).rename(app / "node_modules" / "spendfuse")
    return app


def ask(url: str) -> tuple[int, str]:
    request = urllib.request.Request(url, QUESTION, {"x-customer": "c-next", "content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def main() -> int:
    app = served_app(Path(sys.argv[1]))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    # Its other bundler takes no packages from outside of the app's folder.
    command = ["node", "node_modules/next/dist/bin/next", "dev", "--webpack", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1"}
    server = subprocess.Popen(command, cwd=app, env=environment, stdout=sys.stderr, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    try:
        status = 0
        while status in (0, 200) and server.poll() is None and time.monotonic() < deadline:
            try:
                status, body = ask(f"http://127.0.0.1:{port}/api/chat")
                print(status, body, flush=True)
            except OSError:
                time.sleep(0.1)
        return 0 if status == 429 else 1
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


if __name__ == "__main__":
    raise SystemExit(main())
