#!/usr/bin/env python3
"""How fast one transfer through gt is on lines that lose packets, by the way between the two ends.

    benches/ways.py [--seconds N] [--gt PROGRAM] [--wire 1|2] [--up | --small] [--way WORD] [--line WORD]

Starts server and client in network namespaces with a line of benches/link.py between, 100 Mbit/s with a
queue of 256 KiB, and prints Mbit/s of one download (with --up, of one upload) for every way and line, or
for those with this word in their name. With --small it prints the milliseconds of requests for 10 KiB, 10 at a
time, while the download goes on: half of them take at most the first number, 99 % the second. Without bbr, TCP uses CUBIC. Needs root and /dev/net/tun.
"""
import argparse
import os
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
NAME = "ways"
# Bytes of the answer to a small request, and requests at a time.
SMALL, AT_A_TIME = 10 * 1024, 10

# A line: its name, milliseconds each way, percent of lost packets.
LINES = [
    ("no loss, 10 ms", 10, 0),
    ("0.1 %, 10 ms", 10, 0.1),
    ("1 %, 10 ms", 10, 1),
    ("2 %, 50 ms", 50, 2),
]
# A way: its name, the scheme of `remote`, flags of both ends.
WAYS = [
    ("TCP", "tcp", []),
    ("TCP + bbr", "tcp", ["-bbr"]),
    ("WebSocket + bbr", "ws", ["-bbr"]),
    ("QUIC", "quic", []),
    ("QUIC + bbr", "quic", ["-bbr"]),
]


def service():
    """Sends for ever to a visitor that sends `d`; reads for ever from others."""
    listener = socket.create_server((CLIENT, 7000), backlog=64)
    block = bytes(65536)
    while True:
        conn, _ = listener.accept()
        if os.fork():
            conn.close()
            continue
        try:
            what = conn.recv(1)
            if what == b"d":
                while True:
                    conn.sendall(block)
            while what == b"r":
                conn.sendall(block[:SMALL])
                what = conn.recv(1)
            got = 0
            while data := conn.recv(1 << 20):
                got += len(data)
                # The sender counts what has arrived, not what waits on the way.
                conn.sendall(got.to_bytes(8, "big"))
        except OSError:
            pass
        os._exit(0)


def visitor(seconds, up):
    conn = socket.create_connection((SERVER, 7001), timeout=60)
    conn.sendall(b"u" if up else b"d")
    begin = time.monotonic()
    # Slow start is not counted.
    warm = begin + min(3, seconds / 3)
    end = begin + seconds
    count, before, since = 0, 0, begin
    if up:
        conn.settimeout(0.01)
        block = bytes(65536)
        waiting = b""
    while (now := time.monotonic()) < end:
        if now < warm:
            before, since = count, now
        if not up:
            count += len(conn.recv(1 << 20))
            continue
        try:
            conn.send(block)
        except TimeoutError:
            pass
        try:
            waiting += conn.recv(1 << 16, socket.MSG_DONTWAIT)
            if len(waiting) >= 8:
                whole = len(waiting) // 8 * 8
                count = int.from_bytes(waiting[whole - 8:whole], "big")
                waiting = waiting[whole:]
        except BlockingIOError:
            pass
    print(f"{(count - before) * 8 / 1e6 / (time.monotonic() - since):.1f}")


def small_requests(seconds):
    """Asks for little while a download goes on."""
    end = time.monotonic() + seconds
    took = []

    def download():
        conn = socket.create_connection((SERVER, 7001), timeout=60)
        conn.sendall(b"d")
        while time.monotonic() < end and conn.recv(1 << 20):
            pass

    def ask():
        conn = socket.create_connection((SERVER, 7001), timeout=60)
        while (begin := time.monotonic()) < end:
            conn.sendall(b"r")
            left = SMALL
            while left > 0:
                left -= len(conn.recv(left))
            # The download is not at its rate before.
            if begin > end - seconds * 2 / 3:
                took.append(time.monotonic() - begin)

    tasks = [threading.Thread(target=task) for task in [download] + [ask] * AT_A_TIME]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    took.sort()
    print(" / ".join(f"{took[int((len(took) - 1) * part)] * 1000:.0f}" for part in (0.5, 0.99)))


def measure(options, line, way):
    _, delay, loss = line
    _, scheme, flags = way
    words = ["--rate", "100", "--queue", "256", "--delay", str(delay), "--loss", str(loss)]
    # Routes decide for gt without bbr; with it they would decide against it at listeners.
    congestion = "" if "-bbr" in flags else "cubic"
    link = subprocess.Popen(
        [os.path.join(HERE, "link.py"), *words, "--congestion", congestion, NAME],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if link.stdout.readline() != "ready\n":
        sys.exit("the line did not come up")
    running = []

    def start(end, *command):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running.append(subprocess.Popen(["ip", "netns", "exec", f"{NAME}-{end}", *command], **quiet))

    try:
        start("b", sys.executable, __file__, "--be", "service")
        by_udp = ["-quicAddr", f"{SERVER}:7002"] if scheme == "quic" else []
        # QUIC's certificate is one that the server makes.
        trust = ["-remoteCertInsecure"] if by_udp else []
        start("a", options.gt, "server", "-addr", f"{SERVER}:7002", "-id", "id1", "-secret", "s", *by_udp,
              "-tcpRange", "7001-7001", "-tcpNumber", "1", "-wire", options.wire, *flags)
        start("b", options.gt, "client", "-remote", f"{scheme}://{SERVER}:7002", "-id", "id1", "-secret", "s",
              "-local", f"tcp://{CLIENT}:7000", "-remoteTCPPort", "7001", "-wire", options.wire,
              "-reconnectDelay", "200ms", *trust, *flags)
        time.sleep(3)
        visit = [sys.executable, __file__, "--be", "visitor", "--seconds", str(options.seconds)]
        visit += ["--up"] * options.up + ["--small"] * options.small
        done = subprocess.run(["ip", "netns", "exec", f"{NAME}-a", *visit], capture_output=True, text=True)
        return done.stdout.strip() or "-"
    finally:
        for process in running:
            process.terminate()
            process.wait()
        link.communicate("")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--gt", default=os.path.join(HERE, "..", "target", "release", "gt"))
    parser.add_argument("--wire", default="2")
    parser.add_argument("--up", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--way", default="")
    parser.add_argument("--line", default="")
    parser.add_argument("--be", choices=["service", "visitor"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be == "service":
        return service()
    if options.be == "visitor" and options.small:
        return small_requests(options.seconds)
    if options.be == "visitor":
        return visitor(options.seconds, options.up)
    ways = [way for way in WAYS if options.way in way[0]]
    print("| line |", " | ".join(way[0] for way in ways), "|")
    print("| --- |" + " --- |" * len(ways), flush=True)
    for line in LINES:
        if options.line in line[0]:
            figures = [measure(options, line, way) for way in ways]
            print(f"| {line[0]} |", " | ".join(figures), "|", flush=True)


if __name__ == "__main__":
    main()
