#!/usr/bin/env python3
"""CPU time per request of proxies under TLS and HTTP/2, on loopback, interleaved.

    cargo build --release
    benches/protocols.py                    # every mode, whatever peers are installed
    benches/protocols.py --modes h2 --rounds 9 --peers haproxy,nginx

Needs h2load (Debian's nghttp2-client), openssl and nginx (which also serves the answers); haproxy
and envoy (on the PATH or in ENVOY_BIN) where they are to be compared. Everything runs on one CPU,
which is the steadiest on a shared machine; only ratios of one run mean anything. It stops what it
started, by pid.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STABLE, CANARY = 19101, 19102
# Mode: what h2load is told, and how the proxy listens.
MODES = {
    "h2": (["-c", "8", "-m", "32"], "h2c"),
    "tls": (["--h1", "-c", "64"], "tls"),
    "tls-h2": (["-c", "8", "-m", "32"], "tls"),
}


def upstream(folder, size):
    """nginx with answers of `size` bytes on both ports."""
    path = f"{folder}/upstream.conf"
    body = "x" * size
    with open(path, "w") as file:
        file.write(f"""
daemon off; worker_processes 1; pid {folder}/up.pid; error_log {folder}/up.log crit; user root;
worker_rlimit_nofile 8192; events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  server {{ listen 127.0.0.1:{STABLE}; listen 127.0.0.1:{CANARY};
    location / {{ return 200 "{body}"; }} }} }}
""")
    return ["nginx", "-c", path, "-p", folder]


def splitway(folder, port, listen):
    path = f"{folder}/splitway.yaml"
    tls = f", tls: {{ certificates: [{{ certificate: {folder}/a.crt, key: {folder}/a.key }}] }}"
    with open(path, "w") as file:
        file.write(f"""
workers: 1
listeners: [{{ address: '127.0.0.1:{port}'{tls if listen == "tls" else ""} }}]
admin: {{ address: '127.0.0.1:{port + 1000}' }}
state: memory
services:
  - name: api
    tracks:
      stable: {{ version: v1, endpoints: ['127.0.0.1:{STABLE}'] }}
      canary: {{ version: v2, endpoints: ['127.0.0.1:{CANARY}'] }}
    weights: {{ stable: 95, canary: 5 }}
    rules:
      - match: {{ headers: {{ canary: 'true' }} }}
        track: canary
      - match: {{ headers: {{ x-user-group: beta }} }}
        track: canary
""")
    binary = os.environ.get("SPLITWAY_BIN", f"{ROOT}/target/release/splitway")
    return [binary, "run", "--config", path]


def haproxy(folder, port, listen):
    path = f"{folder}/haproxy.cfg"
    how = f"ssl crt {folder}/a.pem alpn h2,http/1.1" if listen == "tls" else "proto h2"
    with open(path, "w") as file:
        file.write(f"""
global
  nbthread 1
  maxconn 4000
  tune.maxaccept 64
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  http-reuse always
  option forwardfor
frontend f
  bind 127.0.0.1:{port} {how}
  use_backend canary if {{ req.hdr(canary) -m str true }} or {{ req.hdr(x-user-group) -m str beta }}
  use_backend canary if {{ rand(100) lt 5 }}
  default_backend stable
backend stable
  server s1 127.0.0.1:{STABLE}
backend canary
  server c1 127.0.0.1:{CANARY}
""")
    return ["haproxy", "-db", "-q", "-f", path]


def nginx(folder, port, listen):
    path = f"{folder}/nginx.conf"
    how = "ssl http2" if listen == "tls" else "http2"
    with open(path, "w") as file:
        file.write(f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
user root; worker_rlimit_nofile 8192; events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off; tcp_nodelay on; server_tokens off;
  keepalive_timeout 300s; keepalive_requests 1000000000;
  ssl_certificate {folder}/a.crt; ssl_certificate_key {folder}/a.key;
  split_clients "$connection.$connection_requests" $split {{ 5% canary; * stable; }}
  map $http_canary $by_canary {{ "true" canary; default $split; }}
  map $http_x_user_group $pool {{ "beta" canary; default $by_canary; }}
  upstream stable {{ server 127.0.0.1:{STABLE}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream canary {{ server 127.0.0.1:{CANARY}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} {how};
    location / {{
      proxy_pass http://$pool; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
""")
    return ["nginx", "-c", path, "-p", folder]


def envoy(folder, port, listen):
    binary = os.environ.get("ENVOY_BIN") or shutil.which("envoy")
    if not binary:
        return None
    api = "type.googleapis.com/envoy.extensions"

    def cluster(name, port):
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        most = {"max_connections": 9000, "max_pending_requests": 9000, "max_requests": 9000}
        return {
            "name": name, "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [most]},
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        }

    def by_header(header, value):
        match = {"name": header, "string_match": {"exact": value}}
        route = {"cluster": "canary", "timeout": "0s"}
        return {"match": {"prefix": "/", "headers": [match]}, "route": route}

    weights = [{"name": "stable", "weight": 95}, {"name": "canary", "weight": 5}]
    split = {"timeout": "0s", "weighted_clusters": {"clusters": weights}}
    routes = [by_header("canary", "true"), by_header("x-user-group", "beta"),
              {"match": {"prefix": "/"}, "route": split}]
    router = {"@type": f"{api}.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    manager = {
        "@type": f"{api}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "f", "codec_type": "AUTO", "use_remote_address": True,
        "generate_request_id": False, "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    named = "envoy.filters.network.http_connection_manager"
    chain = {"filters": [{"name": named, "typed_config": manager}]}
    if listen == "tls":
        pair = {"certificate_chain": {"filename": f"{folder}/a.crt"},
                "private_key": {"filename": f"{folder}/a.key"}}
        common = {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair]}
        context = {"@type": f"{api}.transport_sockets.tls.v3.DownstreamTlsContext",
                   "common_tls_context": common}
        chain["transport_socket"] = {"name": "tls", "typed_config": context}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    listener = {"address": address, "filter_chains": [chain]}
    clusters = [cluster("stable", STABLE), cluster("canary", CANARY)]
    path = f"{folder}/envoy.json"
    with open(path, "w") as file:
        json.dump({"static_resources": {"listeners": [listener], "clusters": clusters}}, file)
    return [binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


PROXIES = {"splitway": splitway, "haproxy": haproxy, "nginx": nginx, "envoy": envoy}


class Proc:
    """A process on the measured CPU."""

    def __init__(self, command, log):
        cpu = os.cpu_count() - 1
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=lambda: (os.setsid(), os.sched_setaffinity(0, {cpu})))

    def pids(self):
        todo, seen = [self.process.pid], []
        while todo:
            pid = todo.pop()
            seen.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as file:
                        todo += [int(child) for child in file.read().split()]
            except OSError:
                pass
        return seen

    def cpu_s(self):
        """User and system time of the whole tree."""
        spent_ns = 0
        for pid in self.pids():
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                        spent_ns += int(file.read().split()[0])
            except OSError:
                pass
        return spent_ns / 1e9

    def stop(self):
        for pid in self.pids():
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                    time.sleep(0.1)
                except OSError:
                    break
        self.process.wait()


def listens(port):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def load(port, options, count, scheme):
    command = ["h2load", "-n", str(count), *options, f"{scheme}://127.0.0.1:{port}/"]
    cpu = os.cpu_count() - 1
    out = subprocess.run(command, capture_output=True, text=True, timeout=300,
                         preexec_fn=lambda: os.sched_setaffinity(0, {cpu})).stdout
    good = next((line for line in out.splitlines() if line.startswith("status codes:")), "")
    return good.split()[2] == str(count) if good else False


def measure(mode, names, rounds, count, size):
    options, listen = MODES[mode]
    scheme = "https" if listen == "tls" else "http"
    costs, procs, folder = {}, {}, tempfile.mkdtemp(prefix="splitway-bench-")
    pair = ["-keyout", f"{folder}/a.key", "-out", f"{folder}/a.crt"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9", "-subj", "/CN=localhost",
                    *pair], check=True, capture_output=True)
    with open(f"{folder}/a.pem", "w") as file:
        file.write(open(f"{folder}/a.crt").read() + open(f"{folder}/a.key").read())
    server = Proc(upstream(folder, size), f"{folder}/log")
    try:
        listens(STABLE)
        for position, name in enumerate(names):
            port = 18200 + position
            command = PROXIES[name](folder, port, listen)
            if command is None or shutil.which(command[0]) is None:
                print(f"# {name}: not installed, skipped", file=sys.stderr)
                continue
            proc = Proc(command, f"{folder}/log")
            if listens(port) and load(port, options, 2_000, scheme):
                procs[name], costs[name] = (proc, port), []
            else:
                print(f"# {name} does not work; see {folder}/log", file=sys.stderr)
                proc.stop()
        for _ in range(rounds):
            for name, (proc, port) in procs.items():
                before = proc.cpu_s()
                if not load(port, options, count, scheme):
                    sys.exit(f"{name} failed requests; see {folder}/log")
                costs[name].append((proc.cpu_s() - before) / count * 1e6)
    finally:
        for proc in [proc for proc, _ in procs.values()] + [server]:
            proc.stop()
    print(f"\n{mode}: {size} B answers, h2load {' '.join(options)}, {rounds} rounds of {count}")
    for name, cost in costs.items():
        ratios = [ours / theirs for ours, theirs in zip(costs["splitway"], cost)]
        spread = (max(ratios) - min(ratios)) / statistics.median(ratios) * 100
        print(f"  {name:9} {statistics.median(cost):7.2f} us/request   splitway is "
              f"{statistics.median(ratios):.3f} of it (spread {spread:.0f} %)")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--modes", default=",".join(MODES))
    arguments.add_argument("--peers", default="haproxy,nginx,envoy")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--count", type=int, default=40_000, help="requests a round")
    arguments.add_argument("--size", type=int, default=1024, help="bytes of an answer")
    given = arguments.parse_args()
    names = ["splitway"] + [name for name in given.peers.split(",") if name]
    for mode in given.modes.split(","):
        measure(mode, names, given.rounds, given.count, given.size)


if __name__ == "__main__":
    main()
