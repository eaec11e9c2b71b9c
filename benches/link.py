#!/usr/bin/env python3
"""Two hosts and the link between them, as network namespaces, for measurements.

    benches/link.py [--delay MS] [--rate MBIT] [--queue KIB] [--codel] [--loss PERCENT] [--seed N] NAME

makes the namespaces NAME-a (10.77.0.1) and NAME-b (10.77.0.2), prints "ready", and carries packets
between them until its standard input ends. Each direction delays by MS, passes MBIT a second, drops
what a queue of KIB has no room for, with --codel also what waited too long in it, and loses PERCENT
of the packets. Where there is none of delay, CoDel and loss the kernel carries the packets; else
this program does, some 10 000 a second. Needs root, and /dev/net/tun for the latter.
"""
import argparse
import collections
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
CLONE_NEWNET = 0x40000000


def namespace(name, here, there):
    """Makes a namespace and returns the packets' end of its only device."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    with open(f"/run/netns/{name}") as other:
        if libc.setns(other.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"way0", IFF_TUN | IFF_NO_PI))
    libc.setns(own, CLONE_NEWNET)
    os.close(own)
    ip = ["ip", "-n", name]
    subprocess.run([*ip, "link", "set", "lo", "up"], check=True)
    subprocess.run([*ip, "addr", "add", here, "peer", there, "dev", "way0"], check=True)
    subprocess.run([*ip, "link", "set", "dev", "way0", "up", "mtu", "1500", "txqueuelen", "1000"], check=True)
    return tun


def kernel_link(names, options):
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "link", "add", "way0", "netns", names[0], "type", "veth",
                    "peer", "name", "way0", "netns", names[1]], check=True)
    for name, here in zip(names, ("10.77.0.1/24", "10.77.0.2/24")):
        ip = ["ip", "-n", name]
        subprocess.run([*ip, "link", "set", "lo", "up"], check=True)
        subprocess.run([*ip, "addr", "add", here, "dev", "way0"], check=True)
        subprocess.run([*ip, "link", "set", "dev", "way0", "up"], check=True)
        if options.rate:
            subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "way0", "root", "tbf",
                            "rate", f"{options.rate}mbit", "burst", "4k",
                            "limit", f"{int(options.queue * 1024)}"], check=True)


class CoDel:
    """When to drop what has waited, as RFC 8289 section 5 has it; OpenWrt's queues do so."""

    TARGET, INTERVAL = 0.005, 0.100

    def __init__(self):
        self.above_at = self.drop_at = 0.0
        self.dropping = False
        self.count = self.last_count = 0

    def drops(self, now, waited, more):
        """Whether what leaves the queue at `now`, having waited so long, with more behind it or not, is dropped."""
        if waited < self.TARGET or not more:
            self.above_at = 0.0
            self.dropping = False
            return False
        if not self.above_at:
            self.above_at = now + self.INTERVAL
            return False
        if self.dropping:
            if now < self.drop_at:
                return False
            self.count += 1
        elif now < self.above_at:
            return False
        else:
            self.dropping = True
            since = self.count - self.last_count
            self.count = since if since > 1 and now - self.drop_at < 16 * self.INTERVAL else 1
            self.last_count = self.count
            self.drop_at = now
        self.drop_at += self.INTERVAL / self.count**0.5
        return True


class Direction:
    def __init__(self, source, target, options, dice):
        self.source, self.target, self.dice = source, target, dice
        self.delay = options.delay / 1000
        self.second_per_byte = 8 / (options.rate * 1e6) if options.rate else 0
        self.room = options.queue * 1024
        self.loss = options.loss / 100
        self.codel = CoDel() if options.codel else None
        self.free_at = 0.0
        self.queue = collections.deque()
        self.queued = 0
        self.on_the_way = []
        self.number = self.dropped = 0

    def take(self, now):
        for _ in range(64):
            try:
                packet = os.read(self.source, 65536)
            except BlockingIOError:
                return
            if self.second_per_byte and self.queued > self.room:
                self.dropped += 1
                continue
            if not self.queue:
                self.free_at = max(now, self.free_at)
            self.queue.append((packet, now))
            self.queued += len(packet)

    def send(self, now):
        while self.queue and self.free_at <= now:
            packet, since = self.queue.popleft()
            self.queued -= len(packet)
            waited = self.free_at - since
            if self.codel and self.codel.drops(self.free_at, waited, bool(self.queue)):
                self.dropped += 1
                continue
            self.free_at += len(packet) * self.second_per_byte
            if self.loss and self.dice.random() < self.loss:
                self.dropped += 1
                continue
            self.number += 1
            heapq.heappush(self.on_the_way, (self.free_at + self.delay, self.number, packet))

    def deliver(self, now):
        while self.on_the_way and self.on_the_way[0][0] <= now:
            packet = heapq.heappop(self.on_the_way)[2]
            try:
                os.write(self.target, packet)
            except OSError:
                self.dropped += 1

    def due(self):
        dues = [self.free_at] if self.queue else []
        if self.on_the_way:
            dues.append(self.on_the_way[0][0])
        return min(dues, default=None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--queue", type=float, default=64)
    parser.add_argument("--codel", action="store_true", help="drop by waiting time, as OpenWrt does")
    parser.add_argument("--loss", type=float, default=0)
    parser.add_argument("--congestion", default="cubic", help="what TCP goes by; empty for the choice of each program")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = [f"{options.name}-a", f"{options.name}-b"]
    try:
        by_kernel = not (options.delay or options.loss or options.codel)
        if by_kernel:
            kernel_link(names, options)
        else:
            a = namespace(names[0], "10.77.0.1", "10.77.0.2")
            b = namespace(names[1], "10.77.0.2", "10.77.0.1")
        for name, there in zip(names, ("10.77.0.2", "10.77.0.1")):
            congestion = ["congctl", options.congestion] if options.congestion else []
            subprocess.run(["ip", "-n", name, "route", "replace", there, "dev", "way0", *congestion],
                           check=True)
        if by_kernel:
            print("ready", flush=True)
            sys.stdin.read()
            return
        dice = random.Random(options.seed)
        directions = [Direction(a, b, options, dice), Direction(b, a, options, dice)]
        poll = select.poll()
        for fd in (a, b, 0):
            poll.register(fd, select.POLLIN)
        print("ready", flush=True)
        while True:
            now = time.monotonic()
            dues = [due for due in (d.due() for d in directions) if due is not None]
            wait = max(0.0, min(dues) - now) * 1000 if dues else None
            for fd, _ in poll.poll(wait):
                if fd == 0 and not os.read(0, 4096):
                    print("dropped", *(d.dropped for d in directions), flush=True)
                    return
            now = time.monotonic()
            for direction in directions:
                direction.take(now)
                direction.send(now)
                direction.deliver(now)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
