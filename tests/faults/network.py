"""Faults of the network, in a network namespace of its own: packets that vanish, clients that do,
and very many connections. `network.py SPLITWAY FOLDER`; prints a line for each part that held."""

import http.client
import http.server
import os
import resource
import socket
import subprocess
import sys
import threading
import time

splitway, folder = sys.argv[1:3]
PATIENCE = 40
served = {}


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.server.server_address[0]
        served[name] = served.get(name, 0) + 1
        body = b"x" * (50_000_000 if self.path == "/big" else 2)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass

    def log_message(self, *_):
        pass


def await_that(what, test):
    deadline = time.monotonic() + PATIENCE
    while not test():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def drop(address):
    """From here on every packet from and to `address` vanishes."""
    rules = f"ip daddr {address} drop; ip saddr {address} drop"
    nft(f"table ip faults {{\nchain in {{\ntype filter hook input priority 0; {rules}\n}}\n}}\n")


def heal():
    nft("delete table ip faults")


def metric(name):
    client = http.client.HTTPConnection("127.0.0.1", 9900, timeout=PATIENCE)
    client.request("GET", "/metrics")
    page = client.getresponse().read().decode()
    values = [line.split()[-1] for line in page.splitlines() if line.startswith(name)]
    return sum(float(value) for value in values)


def get(client, path="/"):
    client.request("GET", path)
    answer = client.getresponse()
    answer.read()
    return answer.status


def start():
    config = f"{folder}/splitway.yaml"
    with open(config, "w") as file:
        file.write("""
listeners: [{ address: 127.0.0.1:8080 }]
timeouts: { connect: 200ms, between_bytes: 1s, idle: 10m }
limits: { connections: off, connections_per_source: off }
state: memory
services:
  - name: api
    tracks: { stable: { endpoints: [127.0.0.2:8001, 127.0.0.3:8001] } }
    retries: { on: [reset, timeout], per_try_timeout: 300ms, budget: 100 }
    rules: [{ match: { path: /ping }, respond: { status: 200, body: pong } }]
""")
    log = open(f"{folder}/log", "w")
    process = subprocess.Popen([splitway, "run", "--config", config], stderr=log)

    def is_ready():
        try:
            socket.create_connection(("127.0.0.1", 8080)).close()
            return True
        except OSError:
            return False

    await_that("it starts", is_ready)
    return process


def lost_packets():
    client = http.client.HTTPConnection("127.0.0.1", 8080, timeout=PATIENCE)
    assert all(get(client) == 200 for _ in range(40))
    assert len(served) == 2, "both endpoints serve"
    drop("127.0.0.2")
    before = dict(served)
    assert [get(client) for _ in range(40)] == [200] * 40, "no request is lost with the endpoint"
    assert served["127.0.0.2"] == before["127.0.0.2"]
    assert "127.0.0.2:8001" in open(f"{folder}/log").read(), "the log names it"
    heal()
    await_that("it is used again", lambda: get(client) and served["127.0.0.2"] > before["127.0.0.2"])
    print("lost packets", flush=True)


def lost_client():
    # The client of the step before has gone, which the gateway sees a moment later.
    await_that("nobody is left", lambda: metric("splitway_downstream_connections ") == 0)
    before = 0
    client = socket.create_connection(("127.0.0.1", 8080), source_address=("127.0.0.9", 0))
    client.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n")
    client.recv(1000)
    assert metric("splitway_downstream_connections ") == before + 1
    drop("127.0.0.9")
    await_that("it is given up", lambda: metric("splitway_downstream_connections ") == before)
    heal()
    client.close()
    print("lost client", flush=True)


def many_connections(process):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(20_000, most - 500)
    before = metric("splitway_downstream_connections ")
    held = []
    for number in range(count):
        # More addresses than one, so that no range of ports runs out.
        source = (f"127.0.1.{number // 5_000 + 1}", 0)
        client = socket.create_connection(("127.0.0.1", 8080), source_address=source)
        client.sendall(b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        held.append(client)
    assert metric("splitway_downstream_connections ") == before + count
    # The first and the last are as alive as a new one.
    for client in [held[0], held[-1]]:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert get(http.client.HTTPConnection("127.0.0.1", 8080, timeout=PATIENCE)) == 200
    with open(f"/proc/{process.pid}/smaps_rollup") as file:
        kib = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    for client in held:
        client.close()
    await_that("they are all gone", lambda: metric("splitway_downstream_connections ") <= before + 1)
    print(f"{count} connections, {kib} KiB", flush=True)


subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for address in ["127.0.0.2", "127.0.0.3"]:
    server = http.server.ThreadingHTTPServer((address, 8001), Server)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
process = start()
try:
    lost_packets()
    lost_client()
    many_connections(process)
finally:
    process.terminate()
    process.wait()
os._exit(0)
