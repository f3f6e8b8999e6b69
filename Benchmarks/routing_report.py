#!/usr/bin/env python3
"""The balancer judged, in virtual time and live; what came out goes into docs/routing-results.md, its plot beside, the
table into README.md too (not of a part of the traces: --limit).

    make bench-routing TRACES=DIR [ARGS="--seeds 1 --minutes 1"]

DIR holds the traces by the names that `tollgate bench routing --help` gives. Takes about half an hour on two cores. Exits
1 where a figure that must be met is not, or where the live policies stand in another order than the virtual ones.
"""

import argparse
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.join(ROOT, ".build/release/tollgate")
RESULTS = os.path.join(ROOT, "docs/routing-results.md")
README = os.path.join(ROOT, "README.md")
PLOT = os.path.join(ROOT, "docs/routing.svg")
CONVERSATION = "mooncake_conversation_trace.jsonl"
PLOTTED = "predicted_cost,lmetric,gie,dynamo,sglang_cache_aware,least_requests"
# Real time, and as fast as two cores carry four policies side by side.
SCALES = (1, 2)


def run(*command):
    """What a command printed, and whether it was content."""
    print("+ " + " ".join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    return done.stdout, done.returncode == 0


def markdown(figures):
    """The judged table, of `bench routing`'s columns."""
    lines = ["| figure | must | aim | measured | met | cell |", "|---|--:|--:|--:|---|---|"]
    for line in figures.splitlines()[1:]:
        figure, must, aim, measured, met, *cell = re.split(r" {2,}", line.strip())
        met = "**no**" if met == "NO" else met
        lines.append(f"| {figure} | {must} | {aim} | {measured} | {met} | {cell[0] if cell else ''} |")
    return "\n".join(lines)


def write_between(path, begin, end, text):
    """Replaces what stands between two lines of a file."""
    with open(path) as file:
        before, _, rest = file.read().partition(begin + "\n")
    _, found, after = rest.partition(end + "\n")
    if not found:
        sys.exit(f"bench-routing: {os.path.relpath(path, ROOT)} has no lines '{begin}' and '{end}'")
    with open(path, "w") as file:
        file.write(f"{before}{begin}\n{text}\n{end}\n{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="only the traces' first requests, so many, in virtual time")
    parser.add_argument("--minutes", type=float, default=3, help="of each live replay")
    arguments = parser.parse_args()
    conversation = os.path.join(arguments.traces, CONVERSATION)
    if not os.path.exists(conversation):
        sys.exit(f"bench-routing: there is no {conversation}; name the traces' directory: make bench-routing TRACES=DIR")

    limit = ["--limit", str(arguments.limit)] if arguments.limit else []
    judged, met = run(
        BINARY, "bench", "routing", "--traces", arguments.traces, "--seeds", str(arguments.seeds), *limit)
    run(BINARY, "simulate", "fleet", "--trace", conversation, "--policies", PLOTTED, "--fleet", "het", "--load", "0.8",
        "--seeds", "1", "--plot", PLOT, *limit)
    lives = []
    for scale in SCALES:
        text, is_in_order = run(
            sys.executable, os.path.join(ROOT, "Benchmarks/routing.py"), "--binary", BINARY, "--trace", conversation,
            "--minutes", str(arguments.minutes), "--scale", str(scale))
        met = met and is_in_order
        lives.append(text.strip())

    if not all([judged.strip(), *lives]):
        sys.exit(f"bench-routing: a part of it failed; {os.path.relpath(RESULTS, ROOT)} stays as it was")
    figures, _, cells = judged.strip().partition("\n\n")
    with open(RESULTS, "w") as file:
        file.write(f"""\
# The balancer, measured

Written by `make bench-routing` ({arguments.seeds} seeds{f", first {arguments.limit} requests" if limit else ""}). What
the figures mean, and what others do: [operations](operations.md), "Routing"; ARCHITECTURE.md.

![Time to first token and goodput by policy](routing.svg)

## Judged in virtual time

```
{figures}
```

Every cell beside its best peer:

```
{cells}
```

## Live, and what virtual time says of the same

```
{chr(10).join(chr(10) + live if index else live for index, live in enumerate(lives))}
```
""")
    if not limit:
        write_between(README, "<!-- bench-routing -->", "<!-- end -->", markdown(figures))
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
