#!/usr/bin/env python3
"""How fast one download is through a direct connection between two clients, and what it costs.

    benches/p2p.py [--seconds N] [--gt PROGRAM] [--other PROGRAM] [--line WORD]
    benches/p2p.py --peers N [--seconds N] [--gt PROGRAM] [--other PROGRAM]

Starts a server and a client with `tcpForwardAddr` in one network namespace and the client with the service in
another, with a line of benches/link.py between, and prints Mbit/s and the processor seconds of both clients for
every GiB, for every line or those with this word in their name. The first line is a pair of kernel devices without
limits. `--other` is the program of the client with the service: an earlier gt, or one without the feature `quic`,
uses SCTP. Then it prints the time from the first connection of a visitor to the direct way (the line of the log),
and the memory of both clients with idle peers. Needs root and /dev/net/tun.

With `--peers`, that many clients connect to one with a service, on loopback, and then wait: prints the memory, the
processor time and the waits of the one with the service.
"""
import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
NAME = "p2p"
TICK = os.sysconf("SC_CLK_TCK")

# A line: its name, Mbit/s (0: no limit), milliseconds each way, percent of lost packets.
LINES = [
    ("no limits", 0, 0, 0),
    ("100 Mbit/s, 20 ms", 100, 10, 0),
    ("100 Mbit/s, 20 ms, 0.1 %", 100, 10, 0.1),
    ("100 Mbit/s, 20 ms, 1 %", 100, 10, 1),
    ("100 Mbit/s, 40 ms", 100, 20, 0),
]


def service():
    listener = socket.create_server(("127.0.0.1", 7000), backlog=64)
    block = bytes(1 << 18)
    while True:
        conn, _ = listener.accept()
        if os.fork():
            conn.close()
            continue
        try:
            while True:
                conn.sendall(block)
        except OSError:
            pass
        os._exit(0)


def visitor(seconds):
    # The first connection goes through the server, and begins the search for a direct way.
    socket.create_connection(("127.0.0.1", 8000), timeout=60).close()
    time.sleep(4)
    conn = socket.create_connection(("127.0.0.1", 8000), timeout=60)
    begin = time.monotonic()
    warm, end = begin + min(3, seconds / 3), begin + seconds
    count = before = 0
    since, spent = begin, cpu()
    buffer = bytearray(1 << 20)
    while (now := time.monotonic()) < end:
        if now < warm:
            before, since, spent = count, now, cpu()
        count += conn.recv_into(buffer)
    took, moved = time.monotonic() - since, count - before
    print(f"{moved * 8 / 1e6 / took:.1f} Mbit/s, {(cpu() - spent) * 2**30 / moved:.2f} CPU s/GiB")


def cpu():
    total = 0
    for pid in os.environ["PIDS"].split():
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def within(end, *command):
    return ["ip", "netns", "exec", f"{NAME}-{end}", *command]


def measure(options, line):
    name, rate, delay, loss = line
    words = ["--queue", "256", "--delay", str(delay), "--loss", str(loss)]
    words += ["--rate", str(rate)] * bool(rate)
    link = subprocess.Popen([os.path.join(HERE, "link.py"), *words, NAME],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if link.stdout.readline() != "ready\n":
        sys.exit("the line did not come up")
    running = []
    logs = tempfile.TemporaryDirectory()

    def start(end, log, *command):
        out = open(os.path.join(logs.name, log), "w")
        running.append(subprocess.Popen(within(end, *command), stdout=out, stderr=out))
        return running[-1].pid

    try:
        start("b", "service", sys.executable, __file__, "--be", "service")
        start("a", "server", options.gt, "server", "-addr", f"{SERVER}:7002", "-stunAddr", f"{SERVER}:7003",
              "-id", "id1", "-secret", "s", "-id", "id2", "-secret", "s")
        time.sleep(1)
        ways = ["-remote", f"tcp://{SERVER}:7002", "-remoteSTUN", f"stun:{SERVER}:7003", "-secret", "s"]
        serving = start("b", "serving", options.other or options.gt, "client", *ways, "-id", "id1",
                        "-local", "http://127.0.0.1:7000")
        forwarding = start("a", "forwarding", options.gt, "client", *ways, "-id", "id2",
                           "-tcpForwardAddr", "127.0.0.1:8000", "-tcpForwardHostPrefix", "id1",
                           "-tcpForwardConnections", "1")
        time.sleep(2)
        before = [memory(pid) for pid in (forwarding, serving)]
        os.environ["PIDS"] = f"{forwarding} {serving}"
        visit = [sys.executable, __file__, "--be", "visitor", "--seconds", str(options.seconds)]
        done = subprocess.run(within("a", *visit), capture_output=True, text=True)
        after = [memory(pid) for pid in (forwarding, serving)]
        with open(os.path.join(logs.name, "forwarding")) as log:
            text = log.read()
        way = re.search(r"peer connected in [^,]*", text)
        print(f"| {name} | {done.stdout.strip() or done.stderr.strip()[-300:]} | {way.group(0) if way else text[-300:]} | "
              f"{before[0]} + {before[1]} -> {after[0]} + {after[1]} KiB |", flush=True)
    finally:
        for process in running:
            process.terminate()
            process.wait()
        link.communicate("")
        logs.cleanup()


def idle(options):
    logs = tempfile.TemporaryDirectory()
    running = []

    def start(log, *command):
        out = open(os.path.join(logs.name, log), "w")
        running.append(subprocess.Popen(command, stdout=out, stderr=out))
        return running[-1].pid

    def log(name):
        with open(os.path.join(logs.name, name)) as text:
            return text.read()

    def until(what, condition):
        for _ in range(600):
            if condition():
                return
            time.sleep(0.1)
        sys.exit(f"there is no end of waiting for {what}: {log('peer0')[-300:]}")

    def waits(pid):
        total = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status") as status:
                total += int(re.search(r"voluntary_ctxt_switches:\s+(\d+)", status.read()).group(1))
        return total

    try:
        users = [word for n in range(options.peers) for word in ("-id", f"peer{n}", "-secret", "s")]
        start("server", options.gt, "server", "-addr", "127.0.0.1:7002", "-stunAddr", "127.0.0.1:7003",
              "-id", "id1", "-secret", "s", *users)
        start("service", sys.executable, __file__, "--be", "service")
        time.sleep(1)
        ways = ["-remote", "tcp://127.0.0.1:7002", "-remoteSTUN", "stun:127.0.0.1:7003", "-secret", "s"]
        serving = start("serving", options.other or options.gt, "client", *ways, "-id", "id1",
                        "-local", "http://127.0.0.1:7000")
        until("the service", lambda: "tunnel started" in log("serving"))
        before = memory(serving)
        for n in range(options.peers):
            start(f"peer{n}", options.gt, "client", *ways, "-id", f"peer{n}", "-tcpForwardAddr", f"127.0.0.1:{8000 + n}",
                  "-tcpForwardHostPrefix", "id1", "-tcpForwardConnections", "1")
            until("its listener", lambda: f":{8000 + n}" in log(f"peer{n}"))
            socket.create_connection(("127.0.0.1", 8000 + n), timeout=60).close()
            until("a direct way", lambda: "peer connected in" in log(f"peer{n}"))
        time.sleep(15)
        os.environ["PIDS"] = str(serving)
        spent, waited, with_peers = cpu(), waits(serving), memory(serving)
        time.sleep(options.seconds)
        spent, waited = cpu() - spent, waits(serving) - waited
        print(f"{options.peers} idle peers: {before} -> {with_peers} KiB, {100 * spent / options.seconds:.2f} % of a core, "
              f"{waited / options.seconds:.1f} waits/s")
    finally:
        for process in running:
            process.terminate()
            process.wait()
        logs.cleanup()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--gt", default=os.path.join(HERE, "..", "target", "release", "gt"))
    parser.add_argument("--other", default="")
    parser.add_argument("--line", default="")
    parser.add_argument("--peers", type=int, default=0)
    parser.add_argument("--be", choices=["service", "visitor"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be == "service":
        return service()
    if options.be == "visitor":
        return visitor(options.seconds)
    if options.peers:
        return idle(options)
    print("| line | download | direct way | memory of the clients before and after |")
    print("| --- | --- | --- | --- |", flush=True)
    for line in LINES:
        if options.line in line[0]:
            measure(options, line)


if __name__ == "__main__":
    main()
