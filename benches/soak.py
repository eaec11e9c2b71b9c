#!/usr/bin/env python3
"""Months in minutes: whether memory, descriptors or threads of gt grow with time.

    benches/soak.py [--minutes N] [--reconnects N]

Starts the release build of gt, a server and a client for each wire, with a proxy between that cuts
a tunnel now and then, and a service. Visitors fetch, echo, go away in the middle of a download,
and say nothing; both ends are told to reload every 20 seconds, with one service more or one less.
Once a minute, when the visitors have gone for a moment, prints the memory (RSS), the descriptors
and the threads of each end. Then the clients change the number of their tunnels until there have
been N new ones. Ends with 1 if something is more than 5 % above what it was after the first minute,
beyond a descriptor or thread or two and 200 KiB. All is on loopback.
"""
import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GT = os.path.join(HERE, "..", "target", "release", "gt")
PATIENCE = 30
SMALL, LARGE = 10 * 1024, 64 << 20
WIRES = "12"
counts = {"fetched": 0, "echoed": 0, "left": 0, "silent": 0, "failed": 0, "cut": 0, "reloads": 0}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


async def serve(reader, writer):
    """The service: answers each request with as much as its path says, and echoes what is none."""
    try:
        while line := await reader.readline():
            if not line.startswith(b"GET "):
                writer.write(line)
                await writer.drain()
                continue
            while (await reader.readline()).strip():
                pass
            size = LARGE if b"/large" in line else SMALL
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            block = bytes(65536)
            while size > 0:
                writer.write(block[:size])
                size -= len(block)
                await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Proxy:
    """Between client and server; closes tunnels when it is told to."""

    def __init__(self, target):
        self.target = target
        self.tunnels = set()
        self.answered = 0

    async def take(self, reader, writer):
        tunnel = [writer]
        self.tunnels.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            tunnel.append(back)

            async def pump(source, sink):
                is_first = source is there
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
                    self.answered += is_first
                    is_first = False
                sink.close()

            both = [asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))]
            _, running = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            pass
        finally:
            self.tunnels.discard(writer)
            for end in tunnel:
                end.transport.abort()

    def cut_one(self):
        if self.tunnels:
            counts["cut"] += 1
            random.choice(list(self.tunnels)).transport.abort()


class Visitors:
    def __init__(self, web, tcp, wire):
        self.web, self.tcp, self.wire = web, tcp, wire
        self.going = asyncio.Event()
        self.here = 0

    async def request(self, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.web)
        writer.write(b"GET %s HTTP/1.1\r\nHost: id%s.example.com\r\n\r\n" % (path, self.wire.encode()))
        head = await reader.readuntil(b"\r\n\r\n")
        return reader, writer, head.startswith(b"HTTP/1.1 200")

    async def fetch(self):
        reader, writer, is_there = await self.request(b"/small")
        try:
            if is_there:
                await reader.readexactly(SMALL)
            counts["fetched" if is_there else "failed"] += 1
        finally:
            writer.close()

    async def leave(self):
        reader, writer, _ = await self.request(b"/large")
        try:
            await reader.read(random.randrange(1, 1 << 20))
        finally:
            writer.transport.abort()
        counts["left"] += 1

    async def echo(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.tcp)
        try:
            for _ in range(random.randrange(1, 20)):
                line = os.urandom(random.randrange(1, 9000)).hex().encode() + b"\n"
                writer.write(line)
                if await reader.readexactly(len(line)) != line:
                    raise SystemExit("an echo was wrong")
            counts["echoed"] += 1
        finally:
            writer.close()

    async def be_silent(self):
        _, writer = await asyncio.open_connection("127.0.0.1", self.web)
        await asyncio.sleep(random.random() * 3)
        writer.transport.abort()
        counts["silent"] += 1

    async def come(self):
        """Waits for the first page."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                _, writer, is_there = await self.request(b"/small")
                writer.close()
                if is_there:
                    return
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(0.1)
        raise SystemExit("gt does not serve")

    async def visit(self):
        while True:
            await self.going.wait()
            self.here += 1
            what = random.choices([self.fetch, self.echo, self.leave, self.be_silent], [60, 30, 5, 5])[0]
            try:
                await asyncio.wait_for(what(), PATIENCE)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                counts["failed"] += 1
            finally:
                self.here -= 1
            await asyncio.sleep(random.random() * 0.05)


class End:
    def __init__(self, name, folder, text):
        self.name, self.text = name, text
        self.path = os.path.join(folder, name + ".yaml")
        self.write("")
        self.process = subprocess.Popen([GT, name.split("-")[0], "-config", self.path])

    def write(self, more):
        with open(self.path, "w") as file:
            file.write(self.text + more)

    def reload(self, more):
        self.write(more)
        self.process.send_signal(signal.SIGHUP)

    def figures(self):
        pid = self.process.pid
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return {"KiB": int(fields["VmRSS"].split()[0]), "fds": len(os.listdir(f"/proc/{pid}/fd")),
                "threads": int(fields["Threads"])}


async def settled(ends):
    """Their figures once nothing has changed for a second."""
    last, since = None, time.monotonic()
    while True:
        figures = {end.name: end.figures() for end in ends}
        if figures != last:
            last, since = figures, time.monotonic()
        elif time.monotonic() - since > 1:
            return figures
        if time.monotonic() - since > PATIENCE:
            raise SystemExit("it does not come to rest")
        await asyncio.sleep(0.1)


async def rest(visitors, ends):
    for group in visitors:
        group.going.clear()
    end = time.monotonic() + PATIENCE + 10
    while any(group.here for group in visitors):
        if time.monotonic() > end:
            raise SystemExit("a visitor hangs")
        await asyncio.sleep(0.05)
    return await settled(ends)


def tell(when, figures):
    row = "  ".join(f"{name} {it['KiB']:6} KiB {it['fds']:4} fds {it['threads']} threads"
                    for name, it in figures.items())
    print(f"{when:>16}  {row}  {dict(counts)}", flush=True)


def growth(first, last):
    return [f"{name}: {what} was {before[what]}, is {last[name][what]}"
            for name, before in first.items() for what, slack in (("KiB", 200), ("fds", 2), ("threads", 2))
            if last[name][what] > before[what] * 1.05 + slack]


async def run(options):
    folder = tempfile.mkdtemp()
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    service = listener.sockets[0].getsockname()[1]
    web, tcp = free_port(), {wire: free_port() for wire in WIRES}
    users = "".join(f"  id{w}: {{secret: s, host: {{number: 2, withID: true}}, tcp: [{{range: {tcp[w]}-{tcp[w]}, number: 1}}]}}\n" for w in WIRES)
    ends = [End("server", folder, f"version: 1.0\noptions: {{addr: '127.0.0.1:{web}', logLevel: error}}\nusers:\n{users}")]
    proxies, visitors = [], []
    for wire in WIRES:
        proxy = Proxy(web)
        proxies.append(proxy)
        entry = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
        remote = entry.sockets[0].getsockname()[1]
        ends.append(End(f"client-{wire}", folder, f"""version: 1.0
options: {{id: id{wire}, secret: s, wire: {wire}, remote: 'tcp://127.0.0.1:{remote}', logLevel: error,
  remoteConnections: 3, reconnectDelay: 100ms}}
services:
  - {{local: 'http://127.0.0.1:{service}'}}
  - {{local: 'tcp://127.0.0.1:{service}', remoteTCPPort: {tcp[wire]}}}
"""))
        visitors.append(Visitors(web, tcp[wire], wire))
    try:
        for group in visitors:
            await group.come()
        tasks = [asyncio.create_task(group.visit()) for group in visitors for _ in range(40)]

        async def disturb():
            for step in range(1 << 30):
                await asyncio.sleep(2)
                random.choice(proxies).cut_one()
                if step % 10 == 9:
                    more = f"  - {{local: 'http://127.0.0.1:{service}', hostPrefix: more}}\n"
                    for end in ends:
                        end.reload(more if end is not ends[0] and step % 20 == 9 else "")
                    counts["reloads"] += 1

        disturber = asyncio.create_task(disturb())
        first = None
        begin = time.monotonic()
        for minute in range(1, options.minutes + 1):
            for group in visitors:
                group.going.set()
            await asyncio.sleep(max(0.0, begin + minute * 60 - time.monotonic()))
            figures = await rest(visitors, ends)
            tell(f"{minute} min", figures)
            first = first or figures
            for task in tasks:
                if task.done():
                    task.result()
        disturber.cancel()
        done = 0
        while done < options.reconnects:
            for proxy, end in zip(proxies, ends[1:]):
                proxy.answered = 0
                # Another number of tunnels makes the client open new ones and end the old.
                end.text = end.text.replace("remoteConnections: 3", "remoteConnections: 4") \
                    if "remoteConnections: 3" in end.text else end.text.replace("remoteConnections: 4", "remoteConnections: 3")
                end.reload("")
            patience = time.monotonic() + PATIENCE
            while not all(proxy.answered for proxy in proxies):
                if time.monotonic() > patience:
                    raise SystemExit("a client does not come back")
                await asyncio.sleep(0.005)
            done += sum(proxy.answered for proxy in proxies)
        figures = await settled(ends)
        tell(f"{done} reconnects", figures)
        grown = growth(first or figures, figures)
        for group in visitors:
            await group.come()
        print("\n".join(grown) or "nothing has grown")
        return bool(grown)
    finally:
        # Whose connections end with this has nothing to add.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for end in ends:
            end.process.terminate()
            end.process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=15)
    parser.add_argument("--reconnects", type=int, default=10000)
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
