"""What each suite needs around it, and how its results are read."""
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BINARY = os.environ.get("SPLITWAY", str(ROOT / "target/debug/splitway"))
# A suite that hangs shall not hang whoever runs it.
LIMIT_S = 600


class Missing(Exception):
    """A tool that is not here."""


def go_tool(folder, package):
    """A program of the modules that go.mod pins, built into `folder`."""
    path = folder / package.rsplit("/", 1)[-1]
    if not path.exists():
        command = ["go", "build", "-o", str(path), package]
        try:
            built = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
        except FileNotFoundError:
            raise Missing("Go is not installed (package golang)") from None
        if built.returncode != 0:
            raise Missing(f"Go cannot build {package}: {built.stderr.strip()[-300:]}")
    return str(path)


def version(module):
    for line in (HERE / "go.mod").read_text().splitlines():
        words = line.split()
        if module in words:
            return words[words.index(module) + 1]
    raise KeyError(module)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def await_port(port, process):
    for _ in range(1200):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        if process.poll() is not None:
            break
    raise SystemExit(f"{process.args[0]} did not listen")


class Gateway:
    """A gateway ahead of one server on loopback."""

    def __init__(self, folder, upstream, protocol="http1", tls=False, more=""):
        self.port = free_port()
        listener = f"address: 127.0.0.1:{self.port}"
        if tls:
            certificate, key = certified(folder) if tls is True else tls
            pair = f"{{ certificate: {certificate}, key: {key} }}"
            listener += f", tls: {{ certificates: [{pair}] }}"
        path = folder / f"{self.port}.yaml"
        path.write_text(
            f"workers: 2\nlisteners: [{{ {listener} }}]\n"
            f"admin: {{ address: 127.0.0.1:{free_port()} }}\nstate: memory\n{more}"
            "services:\n  - name: suite\n    tracks:\n"
            f"      stable: {{ endpoints: [127.0.0.1:{upstream}], protocol: {protocol} }}\n"
        )
        self.log = open(folder / f"{self.port}.log", "wb")
        self.process = subprocess.Popen(
            [BINARY, "run", "--config", str(path)], stdout=subprocess.DEVNULL, stderr=self.log
        )
        await_port(self.port, self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()


def certified(folder):
    """A certificate for localhost, and its key."""
    pair = folder / "edge.crt", folder / "edge.key"
    if pair[0].exists():
        return pair
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(pair[1]), "-out", str(pair[0])]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return pair


# --- h2spec: frames, streams, HPACK ---

class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients of a suite break off as they like."""


class Plain(BaseHTTPRequestHandler):
    """A server that reads its request and answers it."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                self.rfile.read(size + 2)
            while self.rfile.readline().strip():
                pass
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b"ok" * 100
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_HEAD = do_GET

    def log_message(self, *_):
        pass


def h2spec(folder):
    tool = go_tool(folder, "github.com/summerwind/h2spec/cmd/h2spec")
    pinned = version("github.com/summerwind/h2spec")
    server = Quiet(("127.0.0.1", 0), Plain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ways = (("TLS", True, False), ("TLS, strict", True, True), ("h2c, strict", False, True))
    for over, tls, strict in ways:
        with Gateway(folder, server.server_port, tls=tls) as gateway:
            command = [tool, "-h", "127.0.0.1", "-p", str(gateway.port), "-o", "5"]
            command += ["-t", "-k"] if tls else []
            command += ["--strict"] if strict else []
            out = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S).stdout
        counts = re.findall(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", out)
        of, passed, skipped, _ = (int(count) for count in counts[-1])
        failed = out[out.find("Failures:"):].splitlines() if "Failures:" in out else []
        yield dict(suite="h2spec", version=pinned, over=over, passed=passed, of=of - skipped,
                   failed=failed)
    server.shutdown()


# --- grpc-go's interoperability cases ---

CASES = """empty_unary large_unary client_streaming server_streaming ping_pong empty_stream
timeout_on_sleeping_server cancel_after_begin cancel_after_first_response
status_code_and_message special_status_message custom_metadata unimplemented_method
unimplemented_service pick_first_unary orca_per_rpc orca_oob rpc_soak channel_soak""".split()


def interop(folder):
    client = go_tool(folder, "google.golang.org/grpc/interop/client")
    server = go_tool(folder, "google.golang.org/grpc/interop/server")
    pinned = version("google.golang.org/grpc")
    port = free_port()
    serving = subprocess.Popen([server, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        await_port(port, serving)
        with Gateway(folder, port, protocol="h2c") as gateway:
            ways = (("directly", port), ("the gateway", gateway.port))
            for over, to in ways:
                failed = [f"{case}: {why}" for case in CASES if (why := call(client, to, case))]
                yield dict(suite="grpc-go interop", version=pinned, over=over,
                           passed=len(CASES) - len(failed), of=len(CASES), failed=failed)
    finally:
        serving.kill()
        serving.wait()


def call(client, port, case):
    """Why a case did not pass, or nothing."""
    command = [client, "--server_host", "127.0.0.1", "--server_port", str(port)]
    command += ["--test_case", case, "--soak_iterations", "10"]
    if case.startswith("orca"):
        balancer = '{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}'
        command += ["--service_config_json", balancer]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "timed out"
    return ran.stderr.strip().splitlines()[-1][-200:] if ran.returncode else ""


# --- connect-conformance: Connect, gRPC and gRPC-Web, with and without streams ---

FEATURES = """features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  supports_h2c: true
  supports_tls: true
  supports_half_duplex_bidi_over_http1: true
"""


def connect(folder):
    runner = go_tool(folder, "connectrpc.com/conformance/cmd/connectconformance")
    server = go_tool(folder, "connectrpc.com/conformance/cmd/referenceserver")
    pinned = version("connectrpc.com/conformance")
    (folder / "features.yaml").write_text(FEATURES)
    behind = [sys.executable, str(HERE / "behind"), str(folder), server]
    for over, command in (("directly", [server]), ("the gateway", behind)):
        command = [runner, "--conf", str(folder / "features.yaml"), "--mode", "server",
                   "--max-servers", "2", "--", *command]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        out = ran.stdout + ran.stderr
        counted = re.findall(r"(\d+) passed, (\d+) failed", out)
        if not counted:
            raise SystemExit(f"connect-conformance did not end: {out[-2000:]}")
        passed, failing = (int(count) for count in counted[-1])
        failed = re.findall(r"^FAILED: (.*?):?$", out, re.MULTILINE)
        yield dict(suite="connect-conformance", version=pinned, over=over, passed=passed,
                   of=passed + failing, failed=failed)


# --- Autobahn: WebSocket, its server behind the gateway ---

AUTOBAHN = "0.8.2"
ECHO = """
import asyncio, sys, websockets
async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.ConnectionClosed:
        pass
async def main():
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None):
        await asyncio.Future()
asyncio.run(main())
"""


def python2():
    """A Python 2.7 with the suite in it."""
    # Where pyenv keeps its Pythons, those that are not chosen are on no path.
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = [shutil.which("python2.7"), *glob.glob(f"{pyenv}/versions/2.7*/bin/python2.7")]
    for python in filter(None, found):
        check = [python, "-c", "import autobahntestsuite"]
        if subprocess.run(check, capture_output=True).returncode == 0:
            return python
    raise Missing(f"no Python 2.7 has PyPI's autobahntestsuite {AUTOBAHN}")


# Messages of many megabytes, and a thousand of each with every setting of compression.
LONG = ["9.*", "12.*", "13.*"]


def autobahn_short(folder):
    return autobahn(folder, ", less 9, 12, 13", LONG)


def autobahn(folder, what="", excluded=()):
    python = python2()
    port = free_port()
    echoing = subprocess.Popen([sys.executable, "-c", ECHO, str(port)], stderr=subprocess.DEVNULL)
    try:
        await_port(port, echoing)
        with Gateway(folder, port) as gateway:
            for over, to in (("directly", port), ("the gateway", gateway.port)):
                yield fuzzed(folder, python, (over + what, list(excluded)), to)
    finally:
        echoing.kill()
        echoing.wait()


def fuzzed(folder, python, way, port):
    over, excluded = way
    reports = folder / f"autobahn-{port}"
    server = {"agent": "one", "url": f"ws://127.0.0.1:{port}"}
    spec = {"outdir": str(reports), "servers": [server], "cases": ["*"],
            "exclude-cases": excluded}
    (folder / "autobahn.json").write_text(json.dumps(spec))
    start = "from autobahntestsuite.wstest import run; run()"
    command = [python, "-c", start, "-m", "fuzzingclient", "-s", str(folder / "autobahn.json")]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=3 * LIMIT_S)
    cases = json.loads((reports / "index.json").read_text())["one"]
    good = ("OK", "NON-STRICT", "INFORMATIONAL")
    failed = [f"{case}: {one['behavior']}" for case, one in cases.items()
              if one["behavior"] not in good]
    return dict(suite="Autobahn", version=AUTOBAHN, over=over, passed=len(cases) - len(failed),
                of=len(cases), failed=failed)


ALL = {"h2spec": h2spec, "interop": interop, "connect": connect, "autobahn": autobahn,
       "autobahn-short": autobahn_short}
