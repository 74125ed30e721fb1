"""Times one check of each kind from Python, one after another, and prints a JSON list.

Asked are a spendfuse sidecar, Redis (GET), and the checks of two packages that limit AI spend within
a program: ai-cost-calc (its guarded_call, with its list of blocked customers fetched before) and
margint (its guarded_call, with the answer remembered, and asking its service). Their services are
stood in for by a server on loopback that answers at once.
"""

import argparse
import gc
import http.client
import http.server
import json
import logging
import socket
import sys
import threading
import time

CUSTOMERS = 300


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, by the standard library's client."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers for the packages' services."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        blocked = {"organization": False, "event_types": [],
                   "customer_ids": [f"blocked-{number}" for number in range(CUSTOMERS)]}
        answer = {"allowed": True, "changed": True, "version": 1, "blocked": blocked}
        if "blocklist" not in self.path:
            del answer["blocked"]
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def timed(what, count, ask):
    for number in range(count // 10 + 1):
        ask(number)
    gc.disable()
    times = []
    for number in range(count):
        began = time.perf_counter_ns()
        ask(number)
        times.append(time.perf_counter_ns() - began)
    gc.enable()
    times.sort()
    return {"what": what, "p50": times[len(times) // 2] / 1000,
            "p99": times[len(times) * 99 // 100] / 1000}


def sidecar(connection):
    headers = {"Content-Type": "application/json"}

    def ask(number):
        body = json.dumps({"workspace": "acme", "customer": f"c-{number % CUSTOMERS}",
                           "feature": "feature-1", "model": "gpt-4o-mini",
                           "estimated_cost_usd": "0.01"})
        connection.request("POST", "/v1/check", body, headers)
        answer = json.loads(connection.getresponse().read())
        assert answer["budgets"], answer

    return ask


def tcp_connection(address):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port))
    connection.connect()
    # http.client sends head and body apart; without this each question waits for an acknowledgement.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def redis_get(client):
    def ask(number):
        assert client.get(f"customer|acme/customer=c-{number % CUSTOMERS}") is not None

    return ask


def packages(count, results):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    from ai_cost_calc import AiCostCalc

    calc = AiCostCalc(api_key="bench", base_url=base)
    allowed = lambda: True
    results.append(timed("ai-cost-calc, list at hand", count, lambda number: calc.guarded_call(
        customer_id=f"c-{number % CUSTOMERS}", event_type="chat", call=allowed)))

    from margint import Margint

    guard = Margint("bench", endpoint=base + "/events", budget_endpoint=base + "/check",
                    flush_interval_seconds=3600)
    results.append(timed("margint, answer at hand", count, lambda number: guard.guarded_call(
        f"c-{number % CUSTOMERS}", allowed, "chat")))
    results.append(timed("margint, asking its service on loopback", count // 5,
                         lambda number: guard.guarded_call(f"n-{time.perf_counter_ns()}", allowed, "chat")))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sidecar-tcp", required=True)
    parser.add_argument("--sidecar-unix", required=True)
    parser.add_argument("--redis-tcp")
    parser.add_argument("--redis-unix")
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    count = options.count
    results = [timed("sidecar, Unix socket", count, sidecar(UnixConnection(options.sidecar_unix))),
               timed("sidecar, loopback", count, sidecar(tcp_connection(options.sidecar_tcp)))]
    try:
        import redis

        if options.redis_unix:
            client = redis.Redis(unix_socket_path=options.redis_unix)
            results.append(timed("Redis, Unix socket", count, redis_get(client)))
        if options.redis_tcp:
            host, port = options.redis_tcp.rsplit(":", 1)
            client = redis.Redis(host=host, port=int(port))
            results.append(timed("Redis, loopback", count, redis_get(client)))
    except Exception as error:
        print(f"Redis: {error}", file=sys.stderr)
    try:
        packages(count, results)
    except Exception as error:
        print(f"packages: {error!r}", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
