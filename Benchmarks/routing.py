#!/usr/bin/env python3
"""The balancer live: a trace replayed through real gateways in front of simulated nodes.

    python3 Benchmarks/routing.py --trace TRACE.jsonl [--policies a,b] [--minutes 3] [--scale 1] [--json]

Each policy has its own gateway, store and eight nodes (`tollgate simulate node`: the model of the fleet simulation,
in real time), all on this machine and at the same time, so that what else it does falls on all alike. The fleet, the
trace's requests and their rate are those of `tollgate simulate fleet`, which says what virtual time makes of the same.
With --scale 2 nodes and arrivals are twice as fast; times are given as if they were not.

The judge is the client: time to the first byte of the answer's first event.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys

from servers import BenchFailure, Servers

BLOCK_TOKENS = 512
TOKEN_BYTES = 4
MODEL = "llama-3.1-8b"
# `tollgate simulate fleet --fleet het`: what stands at each index, and the round trip from the first gateway.
PROFILES = {"het": ["h100-8b", "a100-8b", "l40-8b", "h100-8b", "a100-8b", "l40-8b", "h100-8b", "h100-8b"],
            "hom": ["h100-8b"] * 8}
RTTS_MS = [1, 12, 35, 80]
CONFIGURATION = """\
listen: 127.0.0.1:{port}
admin: {{ listen: "127.0.0.1:{admin_port}", token: {token} }}
redis: {{ url: "redis://127.0.0.1:{redis_port}/0" }}
journal: {{ directory: {directory}/journal }}
access_log: {directory}/access.log
limits: {{ body_bytes: 8MiB, buffered_bytes: 1GiB }}
timeouts: {{ first_byte: 20m, stream_idle: 20m, request: 40m }}
routing: {{ policy: {policy} }}
event_loops: 1
models: [ {{ id: {model}, context_tokens: 1000000, max_output_tokens: 100000,
             price: {{ input: 0.05, cached_input: 0.01, output: 0.08 }} }} ]
sites:
{sites}
nodes:
{nodes}
org_defaults: {{ rpm: 100000000, tpm: 1000000000000, concurrency: 100000, keys: 10 }}
"""


def text_of_block(block):
    """Words of three letters: a token each for the simulated node, which counts four bytes as one."""
    letters = hashlib.shake_128(str(block).encode()).digest(3 * BLOCK_TOKENS)
    return "".join("%c%c%c " % tuple(97 + byte % 26 for byte in letters[at:at + 3]) for at in range(0, len(letters), 3))


class Trace:
    """A trace's first requests, at a rate."""

    def __init__(self, path, count, rate, seed):
        rows = []
        with open(path) as file:
            for line in file:
                rows.append(json.loads(line))
                if len(rows) == count:
                    break
        generator = random.Random(seed)
        # Stamps are quantised: within a step requests come at any time.
        stamps = [row["timestamp"] for row in rows]
        step = min((b - a for a, b in zip(sorted(set(stamps)), sorted(set(stamps))[1:])), default=1)
        arrivals = sorted((stamp + generator.random() * step, index) for index, stamp in enumerate(stamps))
        stretch = len(rows) / rate / max(1, arrivals[-1][0] - arrivals[0][0])
        self.requests = [
            ((at - arrivals[0][0]) * stretch, rows[index]) for at, index in arrivals]

    @staticmethod
    def body(row):
        tokens = max(1, row["input_length"])
        text = "".join(text_of_block(block) for block in row["hash_ids"][:tokens // BLOCK_TOKENS])
        tail = text_of_block(f"tail {row['timestamp']} {tokens} {row['output_length']}")
        text = (text + tail * 2)[:tokens * TOKEN_BYTES].ljust(tokens * TOKEN_BYTES, "x")
        output = max(1, row["output_length"])
        return json.dumps({
            "model": MODEL, "prompt": text, "stream": True, "ignore_eos": True, "max_tokens": output,
            "min_tokens": output}).encode()


class Side:
    """A policy with all that it needs."""

    def __init__(self, stack, binary, policy, fleet, scale):
        self.policy = policy
        self.servers = servers = stack.enter_context(Servers(binary, 0, 1))
        _, redis_port = servers.redis(pinned=False)
        nodes, sites = "", ""
        for index, rtt in enumerate(RTTS_MS):
            sites += f"  - {{ id: site-{index}, region: r{index}, rtt: {max(1, round(rtt / scale))}ms }}\n"
        for index, profile in enumerate(PROFILES[fleet]):
            site = index % len(RTTS_MS)
            address = servers.simulated_node(
                f"node-{index}", scale, MODEL, pinned=False, options=[
                    "--profile", profile, "--rtt", f"{RTTS_MS[site] / scale}ms", "--context-tokens", "1000000"])
            nodes += (
                f'  - {{ id: node-{index}, site: site-{site}, url: "http://{address}", engine: vllm, class: {profile}, '
                f"models: {{ {MODEL}: {MODEL} }}, max_concurrency: 10000 }}\n")
        self.gateway = servers.gateway_of(
            CONFIGURATION, redis_port=redis_port, policy=policy, model=MODEL, sites=sites, nodes=nodes)
        self.key = self.gateway.create_key()
        self.firsts, self.failures = [], []

    async def ask(self, body, wait, clock, scale):
        await asyncio.sleep(wait)
        started = clock()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port, limit=1 << 20)
            writer.write(
                (f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                 f"Connection: close\r\nAuthorization: Bearer {self.key}\r\nContent-Length: {len(body)}\r\n\r\n"
                 ).encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise BenchFailure(head.split(b"\r\n")[0].decode())
            # Comments of the gateway are no answer.
            tail = b""
            while b"data: {" not in tail:
                more = await reader.read(1 << 16)
                if not more:
                    raise BenchFailure("the stream ended without an event")
                tail += more
            self.firsts.append((clock() - started) * scale)
            end = tail
            while more := await reader.read(1 << 16):
                end = (end + more)[-64:]
            if b"[DONE]" not in end:
                raise BenchFailure("the stream ended before its end")
            writer.close()
        except (OSError, asyncio.IncompleteReadError, BenchFailure) as error:
            self.failures.append(str(error))

    def figures(self):
        if self.failures:
            raise BenchFailure(f"{self.policy}: {len(self.failures)} requests failed, the first: {self.failures[0]}")
        ordered = sorted(self.firsts)
        return {"policy": self.policy, "requests": len(ordered), "ttft_mean_seconds": statistics.fmean(ordered),
                "ttft_p50_seconds": ordered[len(ordered) // 2], "ttft_p90_seconds": ordered[len(ordered) * 9 // 10]}


def cpu_ticks():
    """Of all cores, since the machine started: busy, and in all."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


async def replay(sides, trace, scale):
    """How busy the machine's cores were while requests came, as a share of 1: near 1 it carries no more of them."""
    busy_before, all_before = cpu_ticks()
    clock = asyncio.get_running_loop().time
    begin = clock() + 1
    tasks = set()
    for at, row in trace.requests:
        due = begin + at / scale
        await asyncio.sleep(max(0, due - 0.5 - clock()))
        body = Trace.body(row)
        for side in sides:
            task = asyncio.create_task(side.ask(body, max(0, due - clock()), clock, scale))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    busy, total = cpu_ticks()
    while tasks:
        await asyncio.wait(tasks)
    return (busy - busy_before) / max(1, total - all_before)


def virtual(binary, arguments, count):
    """What virtual time makes of the same, by policy; and the rate, in requests a second."""
    done = subprocess.run(
        [binary, "simulate", "fleet", "--trace", arguments.trace, "--policies", arguments.policies,
         "--fleet", arguments.fleet, "--load", str(arguments.load), "--seeds", str(arguments.seeds),
         "--limit", str(count), "--json"],
        capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchFailure(done.stderr.strip() or "simulate fleet failed")
    runs = json.loads(done.stdout)
    means = {}
    for run in runs:
        means.setdefault(run["policy"], []).append(run["ttft_mean_seconds"])
    return {policy: statistics.fmean(values) for policy, values in means.items()}, runs[0]["rate"]


def table(result):
    first = result["policies"][0]
    lines = [
        f"{result['requests']} requests at {result['rate']:.2f} a second, time x {result['scale']:g}, "
        f"{result['fleet']} at load {result['load']:g}; mean seconds to the first token, and as a multiple of "
        f"{first['policy']}'s (the machine's cores were {100 * result['cores_busy']:.0f} % busy):",
        f"{'policy':20} {'live':>8} {'virtual':>8} {'p90 live':>9} {'live':>7} {'virtual':>8}"]
    for figure in result["policies"]:
        live, virtual = figure["ttft_mean_seconds"], figure["virtual_ttft_mean_seconds"]
        lines.append(
            f"{figure['policy']:20} {live:8.3f} {virtual:8.3f} {figure['ttft_p90_seconds']:9.3f} "
            f"{live / first['ttft_mean_seconds']:7.2f} {virtual / first['virtual_ttft_mean_seconds']:8.2f}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=".build/release/tollgate")
    parser.add_argument("--trace", required=True)
    parser.add_argument("--policies", default="predicted_cost,sglang_cache_aware,least_requests,round_robin")
    parser.add_argument("--fleet", choices=sorted(PROFILES), default="het")
    parser.add_argument("--load", type=float, default=0.8, help="a share of the rate that saturates the fleet")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--scale", type=float, default=1, help="how much faster than time nodes and arrivals are")
    parser.add_argument("--seeds", type=int, default=3, help="of the runs in virtual time")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    binary = os.path.abspath(arguments.binary)

    # How many requests fill the minutes: the rate is the fleet's, whatever the number.
    _, rate = virtual(binary, argparse.Namespace(**{**vars(arguments), "seeds": 1}), 1000)
    count = max(10, round(rate * arguments.scale * arguments.minutes * 60))
    expected, rate = virtual(binary, arguments, count)
    trace = Trace(arguments.trace, count, rate, seed=1)
    policies = arguments.policies.split(",")
    with contextlib.ExitStack() as stack:
        sides = [Side(stack, binary, policy, arguments.fleet, arguments.scale) for policy in policies]
        busy = asyncio.run(replay(sides, trace, arguments.scale))
        figures = [side.figures() for side in sides]
        for figure, side in zip(figures, sides):
            figure["virtual_ttft_mean_seconds"] = expected[side.policy]
            ledger = side.gateway.ledger()
            if ledger["drift_nanousd"] or ledger["settled"] != count:
                raise BenchFailure(f"{side.policy}: the ledger has {ledger}, the clients {count} answers")

    live = sorted(figures, key=lambda figure: figure["ttft_mean_seconds"])
    in_order = [figure["policy"] for figure in live] == sorted(expected, key=expected.get)
    result = {
        "scale": arguments.scale, "rate": rate, "requests": count, "fleet": arguments.fleet, "load": arguments.load,
        "cores_busy": busy, "policies": figures, "same_order_as_virtual": in_order}
    print(json.dumps(result, indent=2) if arguments.json else table(result))
    if not in_order:
        raise BenchFailure("the policies do not stand in the order of virtual time")


if __name__ == "__main__":
    try:
        main()
    except BenchFailure as failure:
        sys.exit(f"routing: {failure}")
