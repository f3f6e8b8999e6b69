#!/usr/bin/env python3
"""CPU per request of several gateways, in turns: whether a change made the request path dearer.

    python3 Benchmarks/compare.py OLD NEW [--http2] [--rounds 9] [--seconds 2] [--json]

With --http2 requests come over HTTP/2 and TLS.

Each gateway has its own store, node and journal; all run on one core and take turns, round by round, so that what else
the machine does falls on all alike. nginx proxies the same bytes beside them. Prints medians, and the median of the
rounds' own ratios of each gateway to the first.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys

import bench
from servers import Servers, cpu_seconds


HTTP2_REQUESTS_PER_SECOND = 5_000


class Side:
    """One proxy with all that it needs, and how to load it."""

    def __init__(self, stack, binary, cores, http2):
        """`binary` is a gateway; nginx where there is none."""
        self.servers = servers = stack.enter_context(Servers(os.path.abspath(binary or ""), *cores))
        self.redis_pid, redis_port = servers.redis()
        backend = servers.backend(bench.plain_answer())
        certificate = servers.certificate() if http2 else None
        self.key, body = "none", bench.request_body("bench", max_tokens=64)
        if binary:
            gateway = servers.gateway([backend], redis_port, concurrency=256, tls=certificate)
            self.pid, self.port, self.key = gateway.pid, gateway.port, gateway.create_key()
        elif http2:
            self.pid, self.port = servers.secure_proxy(backend, *certificate)
        else:
            self.pid, self.port = servers.proxy(backend)
        self.http2 = http2
        for name, text in (
                ("post.lua", bench.WRK_SCRIPT.format(key=self.key, body=body)), ("body.json", body)):
            with open(servers.path(name), "w") as file:
                file.write(text)

    def cpu_us(self, seconds):
        """CPU of the proxy for each of the requests that about so many seconds take."""
        cpu = cpu_seconds(self.pid)
        if self.http2:
            requests = bench.run_h2load(self.servers, self.port, self.key, seconds * HTTP2_REQUESTS_PER_SECOND)
        else:
            requests = bench.run_wrk(self.servers, self.port, seconds)
        return (cpu_seconds(self.pid) - cpu) / requests * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="+", help="gateways, the one to compare with first")
    parser.add_argument("--http2", action="store_true", help="HTTP/2 and TLS")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    for binary in options.binaries:
        if not os.access(binary, os.X_OK):
            parser.error(f"there is no {binary}")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the gateways, one for everything around them")
    os.sched_setaffinity(0, {cores[1]})
    with contextlib.ExitStack() as stack:
        sides = {"nginx": Side(stack, None, cores[:2], options.http2)}
        for number, binary in enumerate(options.binaries):
            sides[f"{number}: {binary}"] = Side(stack, binary, cores[:2], options.http2)
        for one in sides.values():
            one.cpu_us(1)
        rounds = []
        for number in range(1, options.rounds + 1):
            # The other way round each second time: who is first has no advantage.
            names = list(sides) if number % 2 else list(reversed(sides))
            one = {name: sides[name].cpu_us(options.seconds) for name in names}
            rounds.append(one)
            bench.say(f"  round {number}: " + ", ".join(f"{name} {one[name]:.1f} us" for name in sides))
    first = f"0: {options.binaries[0]}"
    results = {
        name: {
            "cpu_us": statistics.median(one[name] for one in rounds),
            "to_first": statistics.median(one[name] / one[first] for one in rounds),
            "to_nginx": statistics.median(one[name] / one["nginx"] for one in rounds)}
        for name in sides}
    if options.json:
        print(json.dumps({"rounds": rounds, "results": results}, indent=2))
        return
    for name, result in results.items():
        print(f"{name}: {result['cpu_us']:.1f} us of CPU a request, {result['to_nginx']:.2f} x nginx, "
              f"{result['to_first']:.3f} x the first")


if __name__ == "__main__":
    try:
        main()
    except bench.BenchFailure as failure:
        sys.exit(f"compare: {failure}")
