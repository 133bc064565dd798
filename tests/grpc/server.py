"""A gRPC server without generated code: echo in every shape, failures on demand, and health."""
import sys
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

track = sys.argv[1]
failing = {"code": None}


def bytes_through(value):
    return value


def unary(request, context):
    context.send_initial_metadata((("x-track", track),))
    text = request.decode()
    if text == "metadata":
        return repr(sorted(dict(context.invocation_metadata()).items())).encode()
    if text.startswith("slow "):
        time.sleep(float(text.split()[1]))
    if text.startswith("fail "):
        context.abort(getattr(grpc.StatusCode, text.split()[1]), "as asked")
    if text.startswith("mode "):
        name = text.split()[1]
        failing["code"] = None if name == "OK" else getattr(grpc.StatusCode, name)
    elif failing["code"]:
        context.abort(failing["code"], "as told")
    context.set_trailing_metadata((("x-trailer", "t"),))
    return b"%s:%s" % (track.encode(), request)


def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def up(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request[::-1]


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary, bytes_through, bytes_through),
    "Down": grpc.unary_stream_rpc_method_handler(down, bytes_through, bytes_through),
    "Up": grpc.stream_unary_rpc_method_handler(up, bytes_through, bytes_through),
    "Both": grpc.stream_stream_rpc_method_handler(both, bytes_through, bytes_through),
}

# Two pings without anything sent in between are too many; by default it is three.
STRICT = [("grpc.http2.max_ping_strikes", 1)]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=STRICT)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", METHODS),))
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
servicer.set("test.Echo", health_pb2.HealthCheckResponse.SERVING)
if track == "stable":
    servicer.set("test.OnlyStable", health_pb2.HealthCheckResponse.SERVING)
if len(sys.argv) > 2:
    with open(sys.argv[2] + ".key", "rb") as key, open(sys.argv[2] + ".crt", "rb") as certificate:
        credentials = grpc.ssl_server_credentials(((key.read(), certificate.read()),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None)
