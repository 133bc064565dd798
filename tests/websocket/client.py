"""A WebSocket client of the `websockets` library: `client.py URL CA WHAT`; prints what it saw."""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

url, ca, what = sys.argv[1:4]
context = ssl.create_default_context(cafile=ca) if url.startswith("wss") else None


def open_one(**more):
    return connect(url, ssl=context, max_size=None, **more)


async def echo():
    async with open_one() as socket:
        for message in ["", "text \u00e9\u4e16", b"\x00\xff" * 600_000, "x" * 70_000]:
            await socket.send(message)
            assert await socket.recv() == message
        # In fragments, and with pings in between.
        await socket.send(["a", "b" * 100_000, "c"])
        latency = await socket.ping()
        assert await socket.recv() == "a" + "b" * 100_000 + "c"
        await latency
        print("echoed", "deflate" in str(socket.response.headers.get("sec-websocket-extensions")))
    print(socket.close_code)
    async with open_one(compression=None) as socket:
        await socket.send("close")
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            print(closed.rcvd.code, closed.rcvd.reason)


async def many():
    async def one(number):
        async with open_one() as socket:
            for turn in range(20):
                await socket.send(f"{number} {turn}")
                assert await socket.recv() == f"{number} {turn}"

    await asyncio.gather(*(one(number) for number in range(100)))
    print("all")


async def held():
    """Says "open", then echoes every line it gets; says how the connection ended."""
    async with open_one() as socket:
        print("open", flush=True)
        loop = asyncio.get_running_loop()
        try:
            while True:
                line = await loop.run_in_executor(None, sys.stdin.readline)
                if not line:
                    break
                await socket.send(line.strip())
                print(await socket.recv(), flush=True)
            await socket.close()
        except ConnectionClosed:
            pass
    print("closed", socket.close_code, flush=True)


async def idle():
    """Says how a connection without traffic ends."""
    async with open_one(ping_interval=None) as socket:
        await socket.wait_closed()
        print("closed", socket.close_code, flush=True)


async def refused():
    try:
        async with open_one():
            print("open")
    except InvalidStatus as refusal:
        print(refusal.response.status_code)


asyncio.run(globals()[what]())
