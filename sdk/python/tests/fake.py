"""A sidecar that keeps what it is told and can be made to fail, over TCP or a Unix socket."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable, Optional

from stub import Server


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class FakeSidecar:
    def __init__(self, socket_path: Optional[str] = None, port: int = 0) -> None:
        self.events: list[dict[str, Any]] = []
        self.batches: list[list[dict[str, Any]]] = []
        self.checks: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        #: Holds that were given back.
        self.released: list[str] = []
        #: Statuses that come before it works: of /v1/usage, in their order.
        self.failures: list[int] = []
        #: Takes a batch and closes the connection without a word, so often.
        self.loses_answers = 0
        self.check_status = 200
        #: Refuses questions without a workspace.
        self.is_strict = False
        self.decision: dict[str, Any] = {"decision": "allow", "state": "live"}
        self.hangs = 0.0
        #: Of one call by its model; one cent where it is not here.
        self.prices: dict[str, str] = {}
        #: For each customer.
        self.limit: Optional[str] = None
        self.spent: dict[Any, Decimal] = {}
        #: What `GET /v1/blocklist` is answered with, by the request's path.
        self.blocklist: Optional[Callable[[str], tuple[int, dict[str, Any]]]] = None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = socket_path is None
            # Of a Unix socket the peer has no address.
            client_address = ("", 0)

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                fake.headers.append({name.lower(): value for name, value in self.headers.items()})
                if fake.hangs:
                    time.sleep(fake.hangs)
                status, answer = fake.answer(self.path, json.loads(body or b"{}"))
                if status == 0:
                    self.close_connection = True
                    return
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except OSError:
                    pass

            do_GET = do_DELETE = do_POST

        if socket_path is not None:
            self._server: Any = UnixServer(socket_path, Handler)
            self.url = f"unix:{socket_path}"
        else:
            Server.allow_reuse_address = True
            self._server = Server(("127.0.0.1", port), Handler)
            self.port = self._server.server_address[1]
            self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        if path.startswith("/v1/blocklist") and self.blocklist is not None:
            return self.blocklist(path)
        if path.startswith("/v1/reservations/"):
            self.released.append(path.rpartition("/")[2])
        if path == "/v1/check":
            self.checks.append(body)
            if "estimate" in body and not body["estimate"].get("model"):
                return 400, {"error": {"code": "bad_request", "message": "estimate needs a model"}}
            if self.is_strict and not body.get("workspace"):
                return 400, {"error": {"code": "no_workspace", "message": "no workspace is named"}}
            spent = self.spent.get(body.get("customer"), Decimal(0))
            if self.limit is not None and spent >= Decimal(self.limit):
                scope = f"{body.get('workspace')}/customer={body.get('customer')}"
                line = {"budget": "per-customer", "scope": scope, "verdict": "block"}
                line.update(spent_usd=str(spent), limit_usd=self.limit, resets_at="2026-11-23T00:00:00Z")
                return 200, {"decision": "block", "budgets": [line], "state": "live"}
            return self.check_status, self.decision
        if path == "/v1/usage":
            if self.failures:
                status = self.failures.pop(0)
                return status, {"error": {"code": "trouble", "message": "not now"}}
            self.batches.append(body)
            self.events += body
            if self.loses_answers:
                self.loses_answers -= 1
                return 0, {}
            results = [
                {"index": index, "id": event["id"], "status": "accepted", "cost_usd": self.price(event)}
                for index, event in enumerate(body)
            ]
            return 202, {"accepted": len(results), "rejected": 0, "results": results}
        return 200, {"budgets": [], "findings": []}

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]

    def price(self, event: dict[str, Any]) -> str:
        price = self.prices.get(event.get("model", ""), "0.01")
        customer = event.get("customer")
        self.spent[customer] = self.spent.get(customer, Decimal(0)) + Decimal(price)
        return price
