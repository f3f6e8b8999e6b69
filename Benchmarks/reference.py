#!/usr/bin/env python3
"""Holds `tollgate simulate fleet` against another simulator of the same model, peer by peer and cell by cell.

    python3 Benchmarks/reference.py --simulator fleet_sim.py --traces DIR [--gateways 1,4]

The other one is a Python file with `one(trace, policy, rate, kind, G=, share=, seed=)`, named by its path; pypy3 runs it
several times as fast. Both are given the same arrivals at the same gateways. Between equal nodes, and when metrics are
polled, each draws in its own way, and for some rules such a draw decides over minutes of a run: so mean times
to the first token must agree to 10 %, or both be over 10 s: collapsed; and seeds are added until the ratio is within 10 %
with a standard error under 5 %, or beyond 10 % by twice its error, or both have surely collapsed, or there are --seeds-max.
Ends with 1 where they do not agree, or where that is uncertain. It is a net for rules that differ, not a proof that they
do not: a gap of some 15 % can pass where few seeds or noisy ones decide.
"""
import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

# The product's name of a policy, and the other's.
POLICIES = {
    "round_robin": "rr", "least_requests": "least_req", "least_tokens": "lot", "p2c": "p2c", "sglang_cache_aware": "sglang",
    "gie": "gie", "dynamo": "dynamo", "lmetric": "lmetric", "smetric": "smetric",
}
# The other's name of a trace, the file, the kind of fleet, requests a second at load 1.
SETTINGS = [
    ("conversation", "mooncake_conversation_trace.jsonl", "hom", 10.0),
    ("conversation", "mooncake_conversation_trace.jsonl", "het", 6.6),
    ("agentic_dev", "agentic_dev_mooncake_fmt.jsonl", "het", 4.3),
]
COLLAPSE_SECONDS = 10.0
TOLERANCE = 0.10
STANDARD_ERROR_MAX = 0.05
# What `simulate fleet --seeds` takes.
SEEDS_MAX = 1_000
GOSSIP_SECONDS = 0.1

WORD = (1 << 64) - 1
# Workload.gatewayStream: what tells the draw of gateways from the draw of arrivals.
GATEWAY_STREAM = 0x6761_7465_7761_7973


class SplitMix64:
    """Domain's generator, as far as arrivals and gateways are drawn from it."""

    def __init__(self, seed):
        self.state = seed & WORD

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & WORD
        word = self.state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
        return word ^ (word >> 31)

    def random(self):
        return (self.next() >> 11) * 2.0**-53

    def randrange(self, bound):
        return (self.next() * bound) >> 64


_loaded = {}


def loaded(simulator, traces):
    """The other simulator's names, with `load` and `Sim` drawing arrivals and gateways as ours does."""
    if simulator in _loaded:
        return _loaded[simulator]
    os.environ["TRACES"] = traces
    names = {"__name__": "reference"}
    with open(simulator) as file:
        exec(compile(file.read().split("if __name__")[0], simulator, "exec"), names)
    load, simulation, random = names["load"], names["Sim"], names["random"]

    def load_as_ours(*arguments, seed=1, **named):
        names["random"] = SimpleNamespace(Random=lambda _: SplitMix64(seed))
        try:
            return load(*arguments, seed=seed, **named)
        finally:
            names["random"] = random

    class SimulationAsOurs(simulation):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.rng = SimpleNamespace(
                randrange=SplitMix64(self.seed ^ GATEWAY_STREAM).randrange, random=self.rng.random)

    names["load"], names["Sim"] = load_as_ours, SimulationAsOurs
    _loaded[simulator] = names
    return names


def other(job):
    """Mean TTFT and hits of one run of the other simulator."""
    simulator, traces, setting, policy, load, gateways, seed = job
    trace, _, kind, full = setting
    run = loaded(simulator, traces)["one"](
        trace, POLICIES[policy], full * load, kind, G=gateways, share=GOSSIP_SECONDS if gateways > 1 else None, seed=seed)
    return run["ttft_mean"], run["hit"]


def ours(binary, traces, setting, policies, load, gateways, seeds):
    """The same of ours: by policy, each seed's."""
    done = subprocess.run(
        [binary, "simulate", "fleet", "--trace", os.path.join(traces, setting[1]), "--fleet", setting[2], "--rate",
         str(setting[3] * load), "--gateways", str(gateways), "--gossip", f"{int(GOSSIP_SECONDS * 1000)}ms", "--policies",
         ",".join(policies), "--seeds", str(seeds), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} simulate fleet ended with {done.returncode}: {done.stderr[-2_000:]}")
    runs = json.loads(done.stdout)
    return {
        policy: [(run["ttft_mean_seconds"], run["prefix_hit_ratio"]) for run in runs if run["policy"] == policy]
        for policy in policies
    }


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def standard_error(values):
    middle = mean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1) / len(values))


class Figure:
    """Mean TTFT over seeds, its standard error, and mean hits."""

    def __init__(self, runs):
        self.times = [ttft for ttft, _ in runs]
        self.mean = mean(self.times)
        self.error = standard_error(self.times)
        self.hits = mean(hits for _, hits in runs)

    @property
    def has_surely_collapsed(self):
        return self.mean - 2 * self.error >= COLLAPSE_SECONDS

    @property
    def surely_has_not(self):
        return self.mean + 2 * self.error < COLLAPSE_SECONDS


class Cell:
    """One policy in one cell, of ours and of the other."""

    def __init__(self, mine, theirs):
        self.mine, self.theirs, self.seeds = Figure(mine), Figure(theirs), len(mine)
        self.ratio = self.mine.mean / self.theirs.mean
        # Of the differences, seed by seed: both had the same arrivals.
        self.error = self.ratio * standard_error([
            own / self.mine.mean - other / self.theirs.mean for own, other in zip(self.mine.times, self.theirs.times)])

    @property
    def is_near(self):
        return abs(self.ratio - 1) <= TOLERANCE

    @property
    def is_decided(self):
        if self.mine.has_surely_collapsed and self.theirs.has_surely_collapsed:
            return True
        if self.is_near:
            return self.error <= STANDARD_ERROR_MAX
        return abs(self.ratio - 1) - 2 * self.error > TOLERANCE and (self.mine.surely_has_not or self.theirs.surely_has_not)

    @property
    def agrees(self):
        return self.is_near or min(self.mine.mean, self.theirs.mean) >= COLLAPSE_SECONDS

    def line(self, name, policy):
        return (
            f"{name:28}{policy:20}{self.seeds:6}{self.mine.mean:10.3f}{self.theirs.mean:10.3f}{self.ratio:7.2f}"
            f"{self.error:7.3f}{self.mine.hits:7.3f}{self.theirs.hits:7.3f}{'' if self.agrees else '  APART'}"
            f"{'' if self.is_decided else '  (uncertain)'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulator", required=True)
    parser.add_argument("--traces", required=True)
    parser.add_argument("--binary", default=".build/release/tollgate")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--settings", default="conversation-hom,conversation-het,agentic_dev-het")
    parser.add_argument("--loads", default="0.6,0.8,0.95")
    parser.add_argument("--gateways", default="1,4")
    parser.add_argument("--seeds-min", type=int, default=4, help="4 at least: of fewer nothing can be said")
    parser.add_argument("--seeds-max", type=int, default=SEEDS_MAX, help=f"{SEEDS_MAX} at most")
    arguments = parser.parse_args()
    if not 4 <= arguments.seeds_min <= arguments.seeds_max <= SEEDS_MAX:
        parser.error(f"--seeds-min and --seeds-max must be from 4 to {SEEDS_MAX}, the first not above the second")
    policies = arguments.policies.split(",")
    cells = [
        (setting, float(load), int(gateways))
        for setting in SETTINGS if f"{setting[0]}-{setting[2]}" in arguments.settings.split(",")
        for load in arguments.loads.split(",")
        for gateways in arguments.gateways.split(",")
    ]
    apart, undecided = 0, 0
    print(f"{'cell':28}{'policy':20}{'seeds':>6}{'ours, s':>10}{'other':>10}{'ratio':>7}{'error':>7}{'hits':>7}{'other':>7}")
    with ProcessPoolExecutor() as pool:
        for setting, load, gateways in cells:
            name = f"{setting[0]}-{setting[2]} {load:.2f} x{gateways}"
            theirs = {policy: [] for policy in policies}
            waiting, seeds = policies, arguments.seeds_min
            while waiting:
                jobs = [
                    (arguments.simulator, arguments.traces, setting, policy, load, gateways, seed)
                    for policy in waiting for seed in range(len(theirs[policy]) + 1, seeds + 1)
                ]
                for job, run in zip(jobs, pool.map(other, jobs)):
                    theirs[job[3]].append(run)
                mine = ours(arguments.binary, arguments.traces, setting, waiting, load, gateways, seeds)
                found = {policy: Cell(mine[policy], theirs[policy]) for policy in waiting}
                ended = [policy for policy in waiting if found[policy].is_decided or seeds >= arguments.seeds_max]
                for policy in ended:
                    print(found[policy].line(name, policy), flush=True)
                    apart += not found[policy].agrees
                    undecided += not found[policy].is_decided
                waiting = [policy for policy in waiting if policy not in ended]
                seeds = min(2 * seeds, arguments.seeds_max)
    print(f"{apart} of {len(cells) * len(policies)} apart by more than {TOLERANCE:.0%}; {undecided} uncertain")
    return 1 if apart or undecided else 0


if __name__ == "__main__":
    sys.exit(main())
