#!/usr/bin/env python3
"""Holds `tollgate simulate fleet` against another simulator of the same model, peer by peer and cell by cell.

    python3 Benchmarks/reference.py --simulator fleet_sim.py --traces DIR [--seeds 2] [--gateways 1,4]

The other one is a Python file with `one(trace, policy, rate, kind, G=, share=, seed=)`, named by its path. Mean times to
the first token must agree to 10 % where the other's is under 10 s; beyond that both must have collapsed. Ends with 1
where one does not.
"""
import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

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
GOSSIP_SECONDS = 0.1


def other(job):
    """Mean TTFT and hits of the other simulator, each seed's."""
    simulator, traces, setting, policy, load, gateways, seeds = job
    os.environ["TRACES"] = traces
    with open(simulator) as file:
        source = file.read().split("if __name__")[0]
    names = {"__name__": "reference"}
    exec(compile(source, simulator, "exec"), names)
    trace, _, kind, full = setting
    runs = [
        names["one"](
            trace, POLICIES[policy], full * load, kind, G=gateways, share=GOSSIP_SECONDS if gateways > 1 else None, seed=seed)
        for seed in range(1, seeds + 1)
    ]
    return mean(run["ttft_mean"] for run in runs), mean(run["hit"] for run in runs)


def ours(binary, traces, setting, policies, load, gateways, seeds):
    """The same of ours, by policy."""
    done = subprocess.run(
        [binary, "simulate", "fleet", "--trace", os.path.join(traces, setting[1]), "--fleet", setting[2], "--rate",
         str(setting[3] * load), "--gateways", str(gateways), "--gossip", f"{int(GOSSIP_SECONDS * 1000)}ms", "--policies",
         ",".join(policies), "--seeds", str(seeds), "--json"],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    runs = json.loads(done.stdout)
    return {
        policy: tuple(
            mean(run[field] for run in runs if run["policy"] == policy)
            for field in ("ttft_mean_seconds", "prefix_hit_ratio"))
        for policy in policies
    }


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulator", required=True)
    parser.add_argument("--traces", required=True)
    parser.add_argument("--binary", default=".build/release/tollgate")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--settings", default="conversation-hom,conversation-het,agentic_dev-het")
    parser.add_argument("--loads", default="0.6,0.8,0.95")
    parser.add_argument("--gateways", default="1,4")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    policies = arguments.policies.split(",")
    cells = [
        (setting, float(load), int(gateways))
        for setting in SETTINGS if f"{setting[0]}-{setting[2]}" in arguments.settings.split(",")
        for load in arguments.loads.split(",")
        for gateways in arguments.gateways.split(",")
    ]
    apart = 0
    print(f"{'cell':28}{'policy':20}{'ours':>9}{'other':>9}{'ratio':>7}{'hits':>7}{'other':>7}")
    with ProcessPoolExecutor() as pool:
        waiting = {
            (cell, policy): pool.submit(
                other, (arguments.simulator, arguments.traces, cell[0], policy, cell[1], cell[2], arguments.seeds))
            for cell in cells for policy in policies
        }
        for cell in cells:
            setting, load, gateways = cell
            mine = ours(arguments.binary, arguments.traces, setting, policies, load, gateways, arguments.seeds)
            for policy in policies:
                theirs, hits = waiting[cell, policy].result()
                ttft, own_hits = mine[policy]
                agree = ttft >= COLLAPSE_SECONDS if theirs >= COLLAPSE_SECONDS else abs(ttft / theirs - 1) <= TOLERANCE
                apart += not agree
                print(
                    f"{setting[0]}-{setting[2]} {load:.2f} x{gateways}".ljust(28) + f"{policy:20}{ttft:9.3f}{theirs:9.3f}"
                    f"{ttft / theirs:7.2f}{own_hits:7.3f}{hits:7.3f}{'' if agree else '  APART'}", flush=True)
    print(f"{apart} of {len(cells) * len(policies)} apart by more than {TOLERANCE:.0%}")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
