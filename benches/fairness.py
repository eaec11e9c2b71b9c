#!/usr/bin/env python3
"""A keystroke beside bulk: how long an echo takes while eight downloads fill the same tunnel.

    benches/fairness.py [--seconds N] [-- OPTIONS OF benches/link.py]

Starts the release build of gt, server and client, with one tunnel between; prints percentiles of
the echo's round trip, idle and beside eight downloads, for GT/1 and GT/2. With options of a link,
the two ends are in network namespaces with that link between, which needs root; else all is on
loopback.
"""
import argparse
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GT = os.path.join(HERE, "..", "target", "release", "gt")
SERVER, CLIENT = "127.0.0.1", "127.0.0.1"


def service():
    """Echoes what begins with `e`; sends for ever to who begins with `d`."""
    listener = socket.create_server((CLIENT, 7000), backlog=64)

    def serve(conn):
        with conn:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            block = bytes(65536)
            try:
                while data := conn.recv(4096):
                    if data[:1] == b"d":
                        while True:
                            conn.sendall(block)
                    conn.sendall(data)
            except OSError:
                pass

    while True:
        conn, _ = listener.accept()
        # A process each: threads of Python make each other wait.
        multiprocessing.Process(target=serve, args=(conn,), daemon=True).start()
        conn.close()


def visit():
    conn = socket.create_connection((SERVER, 7001), timeout=20)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def visitor(seconds):
    def echoes(conn):
        times = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            conn.sendall(b"e")
            if not conn.recv(1):
                raise SystemExit("the echo ended")
            times.append((time.monotonic() - begin) * 1000)
            time.sleep(0.02)
        times.sort()
        at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
        return f"p50 {at(0.5):8.2f}  p99 {at(0.99):8.2f}  max {times[-1]:8.2f} ms  ({len(times)} echoes)"

    moved = multiprocessing.Value("Q", 0, lock=False)

    def download():
        conns = [visit() for _ in range(8)]
        for conn in conns:
            conn.sendall(b"d")
        buffer = bytearray(1 << 20)
        while ready := select.select(conns, [], [])[0]:
            for conn in ready:
                moved.value += conn.recv_into(buffer)

    conn = visit()
    echoes_idle = echoes(conn)
    print("  idle     ", echoes_idle)
    downloads = multiprocessing.Process(target=download, daemon=True)
    downloads.start()
    time.sleep(3)
    before, begin = moved.value, time.monotonic()
    echoes_busy = echoes(conn)
    rate = (moved.value - before) / (time.monotonic() - begin) * 8 / 1e6
    print("  downloads", echoes_busy, f" {rate:.1f} Mbit/s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--be", choices=["service", "visitor"])
    parser.add_argument("link", nargs="*")
    options = parser.parse_args()
    if options.link:
        global SERVER, CLIENT
        SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
    if options.be == "service":
        return service()
    if options.be == "visitor":
        return visitor(options.seconds)
    link = None
    if options.link:
        link = subprocess.Popen(
            [os.path.join(HERE, "link.py"), *options.link, "fair"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if link.stdout.readline() != "ready\n":
            sys.exit("the link did not come up")
    running = []

    def at(end, *command):
        return ["ip", "netns", "exec", f"fair-{end}", *command] if link else command

    def start(end, *command):
        command = at(end, *command)
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    try:
        start("b", sys.executable, __file__, "--be", "service", "--", *options.link)
        for wire in "12":
            del running[1:]
            start("a", GT, "server", "-addr", f"{SERVER}:7002", "-id", "id1", "-secret", "s",
                  "-tcpRange", "7001-7001", "-tcpNumber", "1")
            start("b", GT, "client", "-remote", f"tcp://{SERVER}:7002", "-id", "id1", "-secret", "s",
                  "-local", f"tcp://{CLIENT}:7000", "-remoteTCPPort", "7001", "-wire", wire,
                  "-reconnectDelay", "200ms")
            time.sleep(2)
            print(f"GT/{wire}", flush=True)
            subprocess.run(at("a", sys.executable, __file__, "--be", "visitor",
                              "--seconds", str(options.seconds), "--", *options.link), check=True)
            for process in running[1:]:
                process.terminate()
                process.wait()
    finally:
        for process in running:
            process.terminate()
            process.wait()
        if link:
            print("link:", link.communicate("")[0].strip())


if __name__ == "__main__":
    main()
