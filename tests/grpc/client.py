"""Calls in every shape through the gateway; prints a line per fact, or fails."""
import sys

import grpc

address, ca, what = sys.argv[1], sys.argv[2], sys.argv[3]
if ca == "-":
    channel = grpc.insecure_channel(address)
else:
    with open(ca, "rb") as file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
unary = channel.unary_unary("/test.Echo/Unary")


def code_of(request, **more):
    try:
        unary(request, **more)
        return "OK"
    except grpc.RpcError as error:
        return "%s %s" % (error.code().name, error.details())


if what == "shapes":
    answer, call = unary.with_call(b"hello", metadata=(("x-one", "1"),))
    print(answer.decode(), dict(call.trailing_metadata())["x-trailer"])
    print(dict(call.initial_metadata())["x-track"])
    seen = unary(b"metadata", metadata=(("x-one", "1"), ("x-two-bin", b"\x00\xff")))
    print("x-one" in seen.decode(), "x-two-bin" in seen.decode())
    down = channel.unary_stream("/test.Echo/Down")
    print(sum(int(number) for number in down(b"1000")))
    up = channel.stream_unary("/test.Echo/Up")
    print(up(b"x" * 10_000 for _ in range(200)).decode())
    both = channel.stream_stream("/test.Echo/Both")
    print(b",".join(both(iter([b"ab", b"cd"]))).decode())
    large = b"z" * 3_000_000
    print(len(unary(large)))
    print(code_of(b"fail NOT_FOUND"))
    print(code_of(b"fail INTERNAL"))
    print(code_of(b"slow 5", timeout=0.5))
    print(code_of(b"x" * 10, wait_for_ready=False))
elif what == "load":
    counts = {}
    for _ in range(int(sys.argv[4])):
        code = code_of(b"load").split()[0]
        counts[code] = counts.get(code, 0) + 1
    print(sorted(counts.items()))
elif what == "begun":
    # As a stream, which shows its first metadata when they come.
    call = channel.unary_stream("/test.Echo/Unary")(b"slow 60")
    call.initial_metadata()
    print("begun", flush=True)
    print(call.code().name, call.details())
elif what == "forever":
    print("started", flush=True)
    while True:
        futures = [unary.future(b"load") for _ in range(20)]
        for future in futures:
            future.exception()
else:
    print(code_of(what.encode()))
