"""A WebSocket echo server and a client that checks it, on python3-websockets.

websocket.py serve                      listens on a port of 127.0.0.1 and tells which
websocket.py talk URL HOST PORT [CA]    talks to URL by way of HOST:PORT
"""

import asyncio
import os
import ssl
import sys

import websockets

SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20]


async def answer(socket):
    """Speaks first, echoes, and closes with 4001 when told goodbye."""
    await socket.send("welcome")
    async for message in socket:
        if message == "goodbye":
            await socket.close(4001, "farewell")
            return
        await socket.send(message)


async def serve():
    async with websockets.serve(answer, "127.0.0.1", 0, max_size=None) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening on {host}:{port}")
        await asyncio.Future()


async def talk(url, host, port, ca=None):
    options = {"ssl": ssl.create_default_context(cafile=ca)} if ca else {}

    def connect():
        return websockets.connect(url, host=host, port=int(port), max_size=None, **options)

    async with connect() as socket:
        assert await socket.recv() == "welcome"
        for size in SIZES:
            message = os.urandom(size)
            await socket.send(message)
            assert await socket.recv() == message, size
        await socket.send("text, ünïcödé")
        assert await socket.recv() == "text, ünïcödé"
        await (await socket.ping())
        # Both directions at once.
        messages = [f"message {n}" for n in range(1000)]

        async def send_all():
            for message in messages:
                await socket.send(message)

        sending = asyncio.create_task(send_all())
        assert [await socket.recv() for _ in messages] == messages
        await sending

    async with connect() as socket:
        assert await socket.recv() == "welcome"
        await socket.send("goodbye")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4001, "farewell")

    # Many connections at a time, none of which may get another's messages.
    async def one(number):
        async with connect() as socket:
            assert await socket.recv() == "welcome"
            for n in range(20):
                await socket.send(f"{number}:{n}")
                assert await socket.recv() == f"{number}:{n}"

    await asyncio.gather(*(one(number) for number in range(50)))
    print("all came back")


asyncio.run({"serve": serve, "talk": talk}[sys.argv[1]](*sys.argv[2:]))
