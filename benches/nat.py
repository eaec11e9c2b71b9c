#!/usr/bin/env python3
"""NAT by NAT: how two clients reach each other, how often directly, and how soon.

    benches/nat.py [--gt PROGRAM] [--tries N] [--pairs A:B,…]

Makes a small internet in network namespaces: a server in the middle, and two homes behind routers. A client in the first
home serves, one in the second forwards (tcpForwardAddr). Each try starts both anew, opens a connection and waits for a
direct way. Prints a table in Markdown: tries, how many became direct, by which way, and the median, the 95th
percentile and the longest of the times from the offer to the connection. Needs root, ip and nft; PROGRAM is target/release/gt.
"""
import argparse
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GT = os.path.join(HERE, "..", "target", "release", "gt")
NAME = f"gtnat{os.getpid()}"
MIDDLE, MIDDLE6 = "203.0.115.1", "2001:db8:115::1"
# The NATs, and how the table calls them.
KINDS = {
    "none": "public address",
    "cone": "full cone",
    "restricted": "restricted",
    "port": "port-restricted",
    "random": "symmetric, random",
    "regular": "symmetric, regular",
    "blocked": "UDP blocked",
    "v6": "IPv6 only",
}
HAIRPIN = "hairpin"
# Time in which a try must become direct.
LIMIT = 12
CONNECTED = re.compile(r"peer connected in ([0-9.]+)(µs|ms|s)\b.*")


def shell(script, check=True):
    script = f"set -e; N={NAME}; {script}"
    subprocess.run(["sh", "-c", script], check=check, stderr=None if check else subprocess.DEVNULL)


def nft(place, rules):
    command = ["ip", "netns", "exec", f"{NAME}-{place}", "nft", "-f", "-"]
    subprocess.run(command, input=rules, text=True, check=True)


def middle():
    shell(
        f"""ip netns add $N-middle; ip -n $N-middle link set lo up
        ip -n $N-middle addr add {MIDDLE}/32 dev lo; ip -n $N-middle addr add {MIDDLE6}/128 dev lo
        ip netns exec $N-middle sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'"""
    )


def router(home, net, v6):
    at_wan = f"2001:db8:{net}:1::2/64" if v6 else f"203.0.{net}.2/24"
    at_middle = f"2001:db8:{net}:1::1/64" if v6 else f"203.0.{net}.1/24"
    gateway, nodad = at_middle.split("/")[0], " nodad" if v6 else ""
    shell(
        f"""R=$N-router-{home}; ip netns add $R; ip -n $R link set lo up
        ip -n $R link add wan type veth peer name to-{home} netns $N-middle
        ip -n $N-middle addr add {at_middle} dev to-{home}{nodad}; ip -n $N-middle link set to-{home} up
        ip -n $R addr add {at_wan} dev wan{nodad}; ip -n $R link set wan up
        ip -n $R route add default via {gateway}
        ip netns exec $R sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'"""
    )
    if v6:
        shell(f"ip -n $N-middle route add 2001:db8:{net}:2::/64 via 2001:db8:{net}:1::2")


def lan(home, of, net, name, v6):
    inner = (f"2001:db8:{net}:2::1/64", f"2001:db8:{net}:2::2/64") if v6 else (f"10.{net}.0.1/24", f"10.{net}.0.2/24")
    nodad = " nodad" if v6 else ""
    shell(
        f"""R=$N-router-{of}; H=$N-home-{home}; ip netns add $H; ip -n $H link set lo up
        ip -n $R link add {name} type veth peer name eth0 netns $H
        ip -n $R addr add {inner[0]} dev {name}{nodad}; ip -n $R link set {name} up
        ip -n $H addr add {inner[1]} dev eth0{nodad}; ip -n $H link set eth0 up
        ip -n $H route add default via {inner[0].split('/')[0]}"""
    )


def place(home, net, kind):
    """Makes a home behind its router."""
    if kind == "none":
        shell(
            f"""H=$N-home-{home}; ip netns add $H; ip -n $H link set lo up
            ip -n $H link add eth0 type veth peer name to-{home} netns $N-middle
            ip -n $N-middle addr add 203.0.{net}.1/24 dev to-{home}; ip -n $N-middle link set to-{home} up
            ip -n $H addr add 203.0.{net}.2/24 dev eth0; ip -n $H link set eth0 up
            ip -n $H route add default via 203.0.{net}.1"""
        )
        return
    v6 = kind == "v6"
    router(home, net, v6)
    lan(home, home, net, "lan", v6)
    rules = """
        add table inet f
        add chain inet f forward { type filter hook forward priority 0; }
        add chain inet f input { type filter hook input priority 0; }
        add chain inet f pre { type nat hook prerouting priority -100; }
        add chain inet f post { type nat hook postrouting priority 100; }
        """
    closed = "add rule inet f input iifname wan ct state new meta l4proto udp drop\n"
    closed += "add rule inet f forward iifname wan ct state new ct status & dnat == 0 meta l4proto udp drop\n"
    home_ip = f"10.{net}.0.2"
    if kind == "regular":
        ports = ", ".join(f"{n} : 203.0.{net}.2 . {30000 + n}" for n in range(4000))
        rules += f"add rule inet f post oifname wan meta l4proto udp snat ip addr . port to numgen inc mod 4000 map {{ {ports} }}\n"
    if not v6:
        how = "masquerade fully-random" if kind == "random" else "masquerade"
        rules += f"add rule inet f post oifname wan {how}\n"
    if kind == "cone":
        rules += f"add rule inet f pre iifname wan meta l4proto udp dnat ip to {home_ip}\n"
    elif kind == "restricted":
        rules += f"""
            add set inet f sent {{ type ipv4_addr; flags dynamic; timeout 60s; }}
            add rule inet f forward oifname wan meta l4proto udp update @sent {{ ip daddr }}
            add rule inet f pre iifname wan meta l4proto udp ip saddr @sent dnat ip to {home_ip}
            """
        rules += closed
    elif kind == "blocked":
        rules += "add rule inet f forward meta l4proto udp drop\n"
    else:
        rules += closed
    nft(f"router-{home}", rules)


def hairpin():
    """Makes two homes with networks of their own behind one router, which sends what goes to its own address back."""
    router("a", 113, False)
    lan("a", "a", 113, "lan", False)
    lan("b", "a", 114, "lan2", False)
    nft(
        "router-a",
        """add table inet f
        add chain inet f forward { type filter hook forward priority 0; }
        add chain inet f pre { type nat hook prerouting priority -100; }
        add chain inet f post { type nat hook postrouting priority 100; }
        add rule inet f forward iifname lan oifname lan2 ct status & dnat == 0 ct state new drop
        add rule inet f forward iifname lan2 oifname lan ct status & dnat == 0 ct state new drop
        add rule inet f pre ip daddr 203.0.113.2 udp dport 40000-40009 dnat ip to 10.113.0.2
        add rule inet f pre ip daddr 203.0.113.2 udp dport 50000-50009 dnat ip to 10.114.0.2
        add rule inet f post ct status & dnat == dnat snat ip to 203.0.113.2
        add rule inet f post oifname wan masquerade""",
    )


def remove():
    for name in ("middle", "router-a", "router-b", "home-a", "home-b"):
        subprocess.run(["ip", "netns", "del", f"{NAME}-{name}"], stderr=subprocess.DEVNULL)


class Program:
    def __init__(self, gt, home, line, log):
        self.log = log
        command = ["ip", "netns", "exec", f"{NAME}-{home}", gt, *line.split()]
        with open(log, "w") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait(self, pattern, limit=30):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            with open(self.log, errors="replace") as log:
                found = re.search(pattern, log.read())
            if found:
                return found
            time.sleep(0.01)
        return None

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def touch(home, port):
    """Opens a connection in a home, so that the client looks for a way."""
    script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET /it.txt HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3 >/dev/null"
    return subprocess.Popen(["ip", "netns", "exec", f"{NAME}-{home}", "bash", "-c", script])


def attempt(gt, folder, kinds, number):
    """Returns the time to a direct way in seconds and the way; None and the reason without one."""
    logs = [os.path.join(folder, f"{end}-{number}.log") for end in "ab"]
    ports = ["", ""]
    if kinds == HAIRPIN:
        ports = [" -webrtcMinPort 40000 -webrtcMaxPort 40009", " -webrtcMinPort 50000 -webrtcMaxPort 50009"]
    at = [f"[{MIDDLE6}]" if kind == "v6" else MIDDLE for kind in (kinds if kinds != HAIRPIN else ("", ""))]
    base = "client -remote tcp://{0}:8080 -remoteSTUN stun:{0}:3478 -logLevel debug"
    serving = Program(
        gt, "home-a", base.format(at[0]) + f"{ports[0]} -id id1 -secret s1 -local file://{folder}/files", logs[0]
    )
    forwarding = Program(
        gt,
        "home-b",
        base.format(at[1])
        + f"{ports[1]} -id id2 -secret s2 -tcpForwardAddr 127.0.0.1:8000 -tcpForwardHostPrefix id1 -tcpForwardConnections 1",
        logs[1],
    )
    visitor = None
    try:
        if not serving.wait("tunnel ready|tunnel opened|tunnel started") or not forwarding.wait("Listening tcpForwardAddr"):
            return None, "not started"
        forwarding.wait("tunnel ready|tunnel opened|tunnel started", 2)
        visitor = touch("home-b", 8000)
        found = forwarding.wait(r"peer connected in [^\n]*|no direct (connection|way)[^\n]*", LIMIT)
        line = found.group(0) if found else "too late"
        connected = CONNECTED.search(line)
        if not connected:
            return None, line
        seconds = float(connected.group(1)) * {"µs": 1e-6, "ms": 1e-3, "s": 1}[connected.group(2)]
        way = re.search(r"way=(\S+)", line)
        punched = "hard NAT: begin" in open(logs[1]).read() + open(logs[0]).read()
        return seconds, (way.group(1) if way else "direct") + (", punched" if punched else "")
    finally:
        if visitor:
            visitor.kill()
            visitor.wait()
        forwarding.stop()
        serving.stop()


def percentile(times, share):
    times = sorted(times)
    return times[min(len(times) - 1, int(share * len(times)))]


def row(gt, kinds, tries):
    folder = tempfile.mkdtemp(prefix="gt-nat-")
    os.chmod(folder, 0o755)
    os.mkdir(os.path.join(folder, "files"))
    with open(os.path.join(folder, "files", "it.txt"), "w") as file:
        file.write("it")
    server = None
    try:
        middle()
        if kinds == HAIRPIN:
            hairpin()
        else:
            place("a", 113, kinds[0])
            place("b", 114, kinds[1])
        line = "server -addr 8080 -stunAddr 3478 -id id1 -secret s1 -id id2 -secret s2"
        server = Program(gt, "middle", line, os.path.join(folder, "server.log"))
        server.wait("answering STUN started")
        times, ways, made = [], {}, 0
        for number in range(tries):
            seconds, way = attempt(gt, folder, kinds, number)
            made += 1
            ways[way] = ways.get(way, 0) + 1
            if seconds is not None:
                times.append(seconds)
            elif not times and made >= min(2, tries):
                # There is none.
                break
        return made, times, ways
    finally:
        if server:
            server.stop()
        remove()
        if os.environ.get("KEEP"):
            print(folder, file=sys.stderr)
        else:
            shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gt", default=GT)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--pairs", help="like port:random,hairpin; all by default")
    args = parser.parse_args()
    # Namespaces are removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if args.pairs:
        pairs = [HAIRPIN if pair == HAIRPIN else tuple(pair.split(":")) for pair in args.pairs.split(",")]
    else:
        pairs = list(itertools.combinations_with_replacement(KINDS, 2)) + [HAIRPIN]
    print("| serves | forwards | direct | median | p95 | longest | way |\n|---|---|---|---|---|---|---|", flush=True)
    for kinds in pairs:
        made, times, ways = row(os.path.abspath(args.gt), kinds, args.tries)
        names = ("one router", "with hairpin") if kinds == HAIRPIN else [KINDS[kind] for kind in kinds]
        took = [f"{percentile(times, share) * 1000:.0f} ms" for share in (0.5, 0.95, 1)] if times else 3 * ["–"]
        ways = ", ".join(f"{way}" if count == made else f"{way} ({count})" for way, count in sorted(ways.items()))
        if not times:
            ways = "server"
        print(f"| {names[0]} | {names[1]} | {len(times)}/{made} | {took[0]} | {took[1]} | {took[2]} | {ways} |", flush=True)


main()
