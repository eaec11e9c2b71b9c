#!/usr/bin/env python3
"""One who stops reading: what fifty visitors notice of him in the same tunnel.

    benches/stall.py [--seconds N]

Starts the release build of gt, server and client, with one tunnel between, for GT/1 and for GT/2.
Fifty visitors fetch 10 KiB again and again; then one more begins to download 1 GiB and stops
reading. Prints percentiles of the fetches before and during that, the failures, and the memory of
both ends. All is on loopback.
"""
import argparse
import os
import socket
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GT = os.path.join(HERE, "..", "target", "release", "gt")
SMALL, LARGE = 10 * 1024, 1 << 30
VISITORS = 50
PATIENCE = 30


def serve(listener):
    block = bytes(65536)

    def answer(conn):
        with conn:
            try:
                size = LARGE if b"/large" in conn.recv(4096) else SMALL
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                while size > 0:
                    conn.sendall(block[:size])
                    size -= len(block)
            except OSError:
                pass

    while True:
        conn, _ = listener.accept()
        threading.Thread(target=answer, args=(conn,), daemon=True).start()


def ask(port, path):
    conn = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    conn.sendall(b"GET %s HTTP/1.1\r\nHost: id1.example.com\r\nConnection: close\r\n\r\n" % path)
    return conn


def fetch(port):
    with ask(port, b"/small") as conn:
        got = 0
        while data := conn.recv(65536):
            got += len(data)
            if got > SMALL:
                return True
    return False


def phase(port, seconds):
    """Times in ms, sorted, and the failures."""
    times, failures, end = [], [], time.monotonic() + seconds

    def visitor():
        while time.monotonic() < end:
            begin = time.monotonic()
            try:
                is_whole = fetch(port)
            except OSError:
                is_whole = False
            (times if is_whole else failures).append((time.monotonic() - begin) * 1000)
            time.sleep(0.05)

    threads = [threading.Thread(target=visitor) for _ in range(VISITORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(times), failures


def rss(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def wait_for(port):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if fetch(port):
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise SystemExit("gt does not serve")
        time.sleep(0.05)


def measure(wire, service, seconds):
    port = free_port()
    user = ["-id", "id1", "-secret", "secret1", "-logLevel", "warn", "-wire", wire]
    with subprocess.Popen([GT, "server", "-addr", f"127.0.0.1:{port}", *user]) as server, \
            subprocess.Popen([GT, "client", "-remote", f"tcp://127.0.0.1:{port}",
                              "-remoteConnections", "1",
                              "-local", f"http://127.0.0.1:{service}", *user]) as client:
        try:
            wait_for(port)
            for when in "before", "during":
                if when == "during":
                    stalled = ask(port, b"/large")
                    stalled.recv(65536)
                    # Until nothing more fits anywhere.
                    time.sleep(2)
                times, failures = phase(port, seconds)
                at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
                spread = f"p50 {at(0.5):8.1f}  p99 {at(0.99):8.1f}  max {times[-1]:8.1f} ms" \
                    if times else "none served"
                print(f"GT/{wire} {when}  {spread}  ({len(times)} fetched, {len(failures)} failed)  "
                      f"server {rss(server)} KiB, client {rss(client)} KiB", flush=True)
            stalled.close()
        finally:
            server.kill()
            client.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15)
    args = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    for wire in "1", "2":
        measure(wire, listener.getsockname()[1], args.seconds)


main()
