#!/usr/bin/env python3
"""The figures that ReferenceTests holds the simulator to, from another simulator of the same model, as Swift; behind each
its standard error.

    python3 Benchmarks/reference_sessions.py --simulator fleet_sim.py

Made-up sessions stand in for the traces, which are no part of the repository: `Trace.sessions`, written again.
"""
import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor

from reference import GOSSIP_SECONDS, POLICIES, Figure, SplitMix64, loaded

BLOCK_TOKENS = 512
SESSIONS = 150
TURNS = 8
TRACE_SEED = 7
RATE = 10.0
SEEDS = range(1, 11)
SHARED_BLOCKS_USUAL = 2
# Of nodes that hold two blocks, the other's SMetric takes the first: one node for every new session.
SHARED_BLOCKS = {"smetric": 1}
KINDS = {"hom": ".homogeneous", "het": ".heterogeneous"}
# What a policy is called in Swift.
CASES = {
    "round_robin": "roundRobin", "least_requests": "leastRequests", "least_tokens": "leastTokens",
    "sglang_cache_aware": "sglangCacheAware",
}


def sessions(shared_blocks):
    """Rows of a trace file."""
    random = SplitMix64(TRACE_SEED)
    rows = []
    for session in range(SESSIONS):
        said = list(range(1, shared_blocks + 1))
        seconds = random.random() * SESSIONS
        for turn in range(TURNS):
            for _ in range(2 + random.randrange(6)):
                said.append(session * 100_000 + turn * 1_000 + len(said) + 10)
            prompt = len(said) * BLOCK_TOKENS + random.randrange(BLOCK_TOKENS)
            rows.append({
                "timestamp": seconds * 1_000, "input_length": prompt, "output_length": 20 + random.randrange(400),
                "hash_ids": list(said)})
            seconds += 4 + random.random() * 12
    return rows


def run(job):
    simulator, traces, policy, kind, gateways, seed = job
    # The other one knows its traces by name; this one's file lies where it looks.
    stats = loaded(simulator, traces)["one"](
        "agentic_dev", POLICIES[policy], RATE, kind, G=gateways, share=GOSSIP_SECONDS if gateways > 1 else None, seed=seed)
    return stats["ttft_mean"], stats["hit"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulator", required=True)
    arguments = parser.parse_args()
    for shared_blocks in sorted({SHARED_BLOCKS.get(policy, SHARED_BLOCKS_USUAL) for policy in POLICIES}, reverse=True):
        policies = [policy for policy in POLICIES if SHARED_BLOCKS.get(policy, SHARED_BLOCKS_USUAL) == shared_blocks]
        cells = [(policy, kind, gateways) for policy in policies for kind in KINDS for gateways in (1, 4)]
        # The other one keeps a trace that it has read: so each gets workers of its own.
        with tempfile.TemporaryDirectory() as traces, ProcessPoolExecutor() as pool:
            with open(os.path.join(traces, "agentic_dev_mooncake_fmt.jsonl"), "w") as file:
                for row in sessions(shared_blocks):
                    file.write(json.dumps(row) + "\n")
            jobs = [(arguments.simulator, traces, *cell, seed) for cell in cells for seed in SEEDS]
            runs = dict(zip(jobs, pool.map(run, jobs)))
            for policy, kind, gateways in cells:
                figure = Figure([runs[arguments.simulator, traces, policy, kind, gateways, seed] for seed in SEEDS])
                print(
                    f"Cell(.{CASES.get(policy, policy)}, {KINDS[kind]}, gateways: {gateways}, ttft: {figure.mean:.4f}, "
                    f"hits: {figure.hits:.3f}),  // {figure.error / figure.mean:.1%}")


if __name__ == "__main__":
    main()
