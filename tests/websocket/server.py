"""A WebSocket server of the `websockets` library: it says what it is told, and who it is."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def answer(connection):
    if connection.request.path == "/track":
        await connection.send(sys.argv[1])
    async for message in connection:
        if message == "close":
            await connection.close(4001, "as told")
            return
        await connection.send(message)


async def main():
    async with serve(answer, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # The test holds the other end.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
