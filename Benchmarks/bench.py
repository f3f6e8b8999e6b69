#!/usr/bin/env python3
"""What the gateway costs, as ratios to nginx measured in the same run. README.md beside this says how.

Exits 1 where a limit is missed or an answer was wrong.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from paced import PacedNode, StreamsInStep  # noqa: E402
from servers import BenchFailure, Servers, cpu_seconds, resident_megabytes  # noqa: E402
from streams import Streams  # noqa: E402

PLAIN_RATIO_MAX = 4.0
STREAM_RATIO_MAX = 1.5
IDLE_MEGABYTES_MAX = 50
OPEN_STREAMS_MEGABYTES_MAX = 200

PART_SECONDS = 75
# So many tokens of one side, then of the other: about 50 ms each.
SLICE_TOKENS = 20
CONNECTIONS = 64
# Over HTTP/2 the same number of requests at once, several to a connection.
SECURE_CONNECTIONS = 16
OPEN_STREAMS = 1_000
# A simulated node runs 256 sequences at once at most.
OPEN_STREAM_NODES = 5
REQUEST_BYTES = 1_024
ANSWER_BYTES = 700

TOKEN_VOCABULARIES = ("o200k_base.tiktoken", "cl100k_base.tiktoken", "qwen.tiktoken", "llama3.json", "gemma3.json")
# What scripts/test-tokens.sh exits with then.
PACKAGES_UNAVAILABLE = 75

WRK_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.body = [==[{body}]==]
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def request_body(model, **fields):
    """A chat request of exactly 1 kB."""
    def text(content):
        return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **fields})
    return text(("lorem ipsum dolor " * 60)[:REQUEST_BYTES - len(text(""))])


def stream_request(port, key, model, tokens):
    body = request_body(model, stream=True, max_tokens=tokens, min_tokens=tokens, ignore_eos=True)
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()


def plain_answer():
    """An answer of exactly 0.7 kB, as vLLM words it."""
    def text(content):
        return json.dumps({
            "id": "chatcmpl-bfc846100bfc1e42987bbcbfdd7e532f", "object": "chat.completion", "created": 1795372942,
            "model": "node-model", "choices": [{
                "index": 0, "message": {"role": "assistant", "content": content, "refusal": None}, "logprobs": None,
                "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 212, "total_tokens": 276, "completion_tokens": 64,
                      "prompt_tokens_details": {"cached_tokens": 0}}}, separators=(",", ":"))
    return text(("dolor sit amet " * 60)[:ANSWER_BYTES - len(text(""))])


def median_ratio(rounds, name):
    """The median of the rounds' own ratios, and how far they spread."""
    ratios = [one["tollgate"][name] / one["nginx"][name] for one in rounds]
    return {
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
        **{f"{side}_{name}": statistics.median(one[side][name] for one in rounds) for side in ("tollgate", "nginx")},
        "rounds": rounds}


def rounds_in_time(rounds):
    """Round numbers: at least three, then on until all are done or the time for one part is over."""
    deadline = time.monotonic() + PART_SECONDS
    for number in range(1, rounds + 1):
        if number > 3 and time.monotonic() > deadline:
            say("  the machine is busy: no more rounds")
            return
        yield number


def check_ledger(gateway, requests, tokens=None, unseen_max=0):
    """Every answer that a client saw has been paid for once, and nothing else has.

    wrk leaves without waiting for the answers of its last requests: up to `unseen_max` more may have been paid for.
    """
    ledger = gateway.ledger()
    wrong = []
    if ledger["drift_nanousd"] != 0:
        wrong.append(f"drift of {ledger['drift_nanousd']} nano-dollars")
    if ledger["open_reservations"] != 0:
        wrong.append(f"{ledger['open_reservations']} reservations open")
    if not 0 <= ledger["settled"] - requests <= unseen_max:
        wrong.append(f"{ledger['settled']} settled for {requests} answers")
    if ledger["requests"] != ledger["settled"]:
        wrong.append(f"usage tells {ledger['requests']} requests, the ledger {ledger['settled']}")
    if tokens is not None and ledger["completion_tokens"] != tokens:
        wrong.append(f"{ledger['completion_tokens']} tokens charged for {tokens}")
    if wrong:
        raise BenchFailure("the ledger is wrong: " + "; ".join(wrong))
    return {**ledger, "answers_seen": requests}


# Plain requests.

def run_wrk(servers, port, seconds, during=None):
    process = subprocess.Popen(
        ["taskset", "-c", str(servers.other_core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s",
         "-s", servers.path("post.lua"), f"http://127.0.0.1:{port}/v1/chat/completions"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if during:
            during()
        output, _ = process.communicate(timeout=seconds + 30)
    finally:
        if process.poll() is None:
            process.kill()
    found = re.search(r"(\d+) requests in", output)
    if process.returncode != 0 or not found or int(found[1]) == 0:
        raise BenchFailure("wrk failed: " + output[-300:])
    for trouble in ("Non-2xx", "Socket errors"):
        if trouble in output:
            raise BenchFailure("answers went wrong: " + output[output.index(trouble):].splitlines()[0])
    return int(found[1])


def measure_wrk(servers, pid, port, seconds, redis_pid):
    cpu, redis_cpu, start = cpu_seconds(pid), cpu_seconds(redis_pid), time.monotonic()
    requests = run_wrk(servers, port, seconds)
    return {
        "requests": requests,
        "cpu_us": (cpu_seconds(pid) - cpu) / requests * 1e6,
        "redis_cpu_us": (cpu_seconds(redis_pid) - redis_cpu) / requests * 1e6,
        "requests_per_second": requests / (time.monotonic() - start)}


def instructions_per_request(servers, pid, port):
    """User-mode instructions by hardware counters; None where the machine shows none (most virtual ones)."""
    if not shutil.which("perf"):
        return None, 0
    probe = subprocess.run(
        ["perf", "stat", "-x,", "-e", "instructions:u", "true"], capture_output=True, text=True, timeout=20)
    if not re.match(r"\d+,", probe.stderr.strip()):
        return None, 0
    report = servers.path("perf.csv")
    perf = subprocess.Popen(
        ["perf", "stat", "-x,", "-e", "instructions:u", "-o", report, "-p", str(pid)], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        requests = run_wrk(servers, port, 2)
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait(10)
    with open(report) as file:
        found = re.search(r"^(\d+),", file.read(), re.MULTILINE)
    return (int(found[1]) / requests if found else None), requests


def measure_plain(make_servers, rounds, seconds):
    with make_servers() as servers:
        redis_pid, redis_port = servers.redis()
        backend = servers.backend(plain_answer())
        proxy_pid, proxy_port = servers.proxy(backend)
        gateway = servers.gateway([backend], redis_port, concurrency=256)
        body, key = request_body("bench", max_tokens=64), gateway.create_key()
        with open(servers.path("post.lua"), "w") as file:
            file.write(WRK_SCRIPT.format(key=key, body=body))
        sides = {"nginx": (proxy_pid, proxy_port), "tollgate": (gateway.pid, gateway.port)}
        for _, port in sides.values():
            run_wrk(servers, port, 1)
        seen, runs = gateway.ledger()["settled"], 0
        results = []
        for number in rounds_in_time(rounds):
            one = {}
            for side, (pid, port) in sides.items():
                one[side] = measure_wrk(servers, pid, port, seconds, redis_pid)
                say(f"  round {number} {side}: {one[side]['cpu_us']:.1f} us a request, "
                    f"{one[side]['requests_per_second']:.0f} requests/s")
            results.append(one)
            seen += one["tollgate"]["requests"]
            runs += 1
        result = median_ratio(results, "cpu_us")
        result["redis_cpu_us"] = statistics.median(one["tollgate"]["redis_cpu_us"] for one in results)
        result["instructions"] = {}
        for side, (pid, port) in sides.items():
            result["instructions"][side], requests = instructions_per_request(servers, pid, port)
            if side == "tollgate" and requests:
                seen += requests
                runs += 1
        result["ledger"] = check_ledger(gateway, seen, unseen_max=runs * CONNECTIONS)
        result["memory_after_megabytes"] = resident_megabytes(gateway.pid)
        return result


# Plain requests over TLS and HTTP/2.

def run_h2load(servers, port, key, requests):
    """Returns how many requests were answered with 2xx: all of them, or it fails."""
    done = subprocess.run(
        ["taskset", "-c", str(servers.other_core), "h2load", "-t1", f"-c{SECURE_CONNECTIONS}",
         f"-m{CONNECTIONS // SECURE_CONNECTIONS}", f"-n{requests}", "-d", servers.path("body.json"),
         "-H", "content-type: application/json", "-H", f"authorization: Bearer {key}",
         f"https://127.0.0.1:{port}/v1/chat/completions"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PART_SECONDS)
    found = re.search(r"status codes: (\d+) 2xx", done.stdout)
    if done.returncode != 0 or "Application protocol: h2" not in done.stdout or not found or int(found[1]) != requests:
        raise BenchFailure("h2load failed: " + (done.stdout + done.stderr)[-400:])
    return requests


def measure_secure(make_servers, rounds, requests):
    with make_servers() as servers:
        redis_pid, redis_port = servers.redis()
        backend, certificate = servers.backend(plain_answer()), servers.certificate()
        proxy_pid, proxy_port = servers.secure_proxy(backend, *certificate)
        gateway = servers.gateway([backend], redis_port, concurrency=256, tls=certificate)
        key = gateway.create_key()
        with open(servers.path("body.json"), "w") as file:
            file.write(request_body("bench", max_tokens=64))
        sides = {"nginx": (proxy_pid, proxy_port), "tollgate": (gateway.pid, gateway.port)}
        for _, port in sides.values():
            run_h2load(servers, port, key, requests // 4)
        seen, results = requests // 4, []
        for number in rounds_in_time(rounds):
            one = {}
            for side, (pid, port) in sides.items():
                cpu, redis_cpu = cpu_seconds(pid), cpu_seconds(redis_pid)
                run_h2load(servers, port, key, requests)
                one[side] = {
                    "cpu_us": (cpu_seconds(pid) - cpu) / requests * 1e6,
                    "redis_cpu_us": (cpu_seconds(redis_pid) - redis_cpu) / requests * 1e6}
                say(f"  round {number} {side}: {one[side]['cpu_us']:.1f} us a request")
            results.append(one)
            seen += requests
        result = median_ratio(results, "cpu_us")
        result["redis_cpu_us"] = statistics.median(one["tollgate"]["redis_cpu_us"] for one in results)
        result["ledger"] = check_ledger(gateway, seen)
        return result


# Streams.

def measure_streams(make_servers, rounds, tokens):
    with make_servers() as servers:
        redis_pid, redis_port = servers.redis()
        node = PacedNode()
        # As a stream is relayed in practice: each chunk goes on when it comes.
        proxy_pid, proxy_port = servers.proxy(node.address, "proxy_buffering off;")
        gateway = servers.gateway([node.address], redis_port, concurrency=256)
        key = gateway.create_key()
        # nginx changes no bodies: it is given the node's own name of the model.
        sides = {"nginx": (proxy_pid, proxy_port, "node-model"), "tollgate": (gateway.pid, gateway.port, "bench")}

        def run(tokens):
            """The streams of both sides side by side, a few tokens of the one and then of the other."""
            with contextlib.ExitStack() as stack:
                streams, one = {}, {}
                for side, (pid, port, model) in sides.items():
                    request = stream_request(port, key, model, tokens)
                    streams[side] = stack.enter_context(StreamsInStep(node, port, request, CONNECTIONS))
                    one[side] = {"cpu": 0, "redis_cpu": 0, "seconds": 0}

                def timed(side, act, *arguments):
                    pid = sides[side][0]
                    before = cpu_seconds(pid), cpu_seconds(redis_pid), time.monotonic()
                    act(*arguments)
                    after = cpu_seconds(pid), cpu_seconds(redis_pid), time.monotonic()
                    for name, start, end in zip(("cpu", "redis_cpu", "seconds"), before, after):
                        one[side][name] += end - start

                for side in sides:
                    timed(side, streams[side].open)
                for done in range(0, tokens, SLICE_TOKENS):
                    for side in sides:
                        timed(side, streams[side].advance, min(SLICE_TOKENS, tokens - done))
                for side in sides:
                    timed(side, streams[side].finish)
                for side, (_, _, model) in sides.items():
                    events, reads = streams[side].streams.check(tokens, model)
                    times = one[side]
                    one[side] = {
                        "chunks": events, "cpu_us": times["cpu"] / events * 1e6,
                        "redis_cpu_us": times["redis_cpu"] / events * 1e6, "chunks_per_read": events / reads,
                        "chunks_per_second": events / times["seconds"]}
                return one

        warm_tokens = 30
        run(warm_tokens)
        results = []
        for number in rounds_in_time(rounds):
            results.append(run(tokens))
            say(f"  round {number}: " + ", ".join(
                f"{side} {one['cpu_us']:.2f} us a chunk ({one['chunks_per_second']:.0f} chunks/s)"
                for side, one in results[-1].items()))
        result = median_ratio(results, "cpu_us")
        result["redis_cpu_us"] = statistics.median(one["tollgate"]["redis_cpu_us"] for one in results)
        result["chunks_per_read"] = {
            side: statistics.median(one[side]["chunks_per_read"] for one in results) for side in sides}
        result["ledger"] = check_ledger(
            gateway, CONNECTIONS * (len(results) + 1), tokens=CONNECTIONS * (warm_tokens + len(results) * tokens))
        return result


# Memory.

def measure_memory(make_servers, tokens):
    with make_servers() as servers:
        _, redis_port = servers.redis()
        nodes = [servers.simulated_node(f"node{index}", speed=0.1) for index in range(OPEN_STREAM_NODES)]
        gateway = servers.gateway(nodes, redis_port, concurrency=256, pinned=False)
        time.sleep(1)
        result = {"start_megabytes": resident_megabytes(gateway.pid)}
        key = gateway.create_key()

        def streams(count, tokens):
            return Streams(gateway.port, stream_request(gateway.port, key, "bench", tokens), count)

        with streams(1, 1) as first:
            first.open()
            first.finish(30)
            first.check(1, "bench")
        time.sleep(0.5)
        cpu, start = cpu_seconds(gateway.pid), time.monotonic()
        time.sleep(2)
        result["idle_cpu_percent"] = (cpu_seconds(gateway.pid) - cpu) / (time.monotonic() - start) * 100
        result["idle_megabytes"] = resident_megabytes(gateway.pid)
        with streams(OPEN_STREAMS, tokens) as many:
            many.open()
            samples = []
            deadline = time.monotonic() + 60
            # From the moment that every stream has begun until the first one ends.
            while many.running == OPEN_STREAMS:
                many.turn(0.1)
                if not samples and many.begun < OPEN_STREAMS:
                    if time.monotonic() > deadline:
                        break
                    continue
                samples.append(resident_megabytes(gateway.pid))
            if len(samples) < 3:
                raise BenchFailure(f"only {many.begun} of {OPEN_STREAMS} streams were open at once")
            result["open_streams_megabytes"] = max(samples)
            many.finish(tokens + 60)
            many.check(tokens, "bench")
        time.sleep(1)
        result["after_megabytes"] = resident_megabytes(gateway.pid)
        result["ledger"] = check_ledger(gateway, OPEN_STREAMS + 1, tokens=OPEN_STREAMS * tokens + 1)
        return result


# Tokens.

def measure_tokens(root, binary, corpus, rounds):
    """Encoding and counting beside the libraries that define the vocabularies: Tests/Tokens/speed.py says how."""
    script = os.path.join(root, "scripts/test-tokens.sh")
    done = subprocess.run(
        [script, "speed", corpus, "--rounds", str(rounds), "--only", *TOKEN_VOCABULARIES],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "TOLLGATE_BINARY": binary})
    if done.returncode == PACKAGES_UNAVAILABLE:
        return {"skipped": "the Python packages that tokens are measured against cannot be installed here"}
    if done.returncode != 0:
        raise BenchFailure(f"tokens: {script} exited {done.returncode}")
    heads, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line[:1] == "|"]
    return {"rounds": rounds, "corpus": corpus, "heads": heads, "rows": rows}


def token_lines(one):
    if "skipped" in one:
        return [f"tokens: skipped: {one['skipped']}"]
    table = [one["heads"], *one["rows"]]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) if number < 2 else cell.rjust(width)
             for number, (cell, width) in enumerate(zip(row, widths))) for row in table]
    return lines + [
        f"tokens: MB/s of one thread's CPU time, medians over rounds ({one['rounds']}) in turns on one text; x: times",
        "  the reference; ours begins each round with an empty cache of pieces, warm: with what it held before"]


# The report.

def measure_decisions(binary, count):
    """What the router takes to pick a node: `tollgate bench decisions --help` says how."""
    done = subprocess.run(
        [binary, "bench", "decisions", "--count", str(count), "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise BenchFailure(f"decisions: {binary} bench decisions exited {done.returncode}")
    return json.loads(done.stdout)


def decision_lines(rows):
    heads = ["picking a node", "nodes", "index", "p50", "p99", "mean", "the other calls"]
    fields = [name + "_nanoseconds" for name in ("decision_p50", "decision_p99", "decision_mean", "rest_mean")]
    table = [heads] + [
        [row["policy"], str(row["nodes"]), row["index"], *(f"{row[field] / 1000:.2f} us" for field in fields)]
        for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) if number == 0 else cell.rjust(width)
             for number, (cell, width) in enumerate(zip(row, widths))) for row in table]
    clock = rows[0]
    return lines + [
        f"nothing, timed alike: {clock['clock_nanoseconds']:.0f} ns, taken off; "
        f"p99 {clock['clock_p99_nanoseconds']:.0f} ns"]


def limits_missed(results):
    limits = [
        ("plain", "ratio", PLAIN_RATIO_MAX, "plain requests cost {:.2f} x nginx's CPU, the limit is {}"),
        ("streams", "ratio", STREAM_RATIO_MAX, "streamed chunks cost {:.2f} x nginx's CPU, the limit is {}"),
        ("memory", "start_megabytes", IDLE_MEGABYTES_MAX, "the idle gateway takes {:.1f} MB, the limit is {}"),
        ("memory", "idle_megabytes", IDLE_MEGABYTES_MAX,
         "after its first request the idle gateway takes {:.1f} MB, the limit is {}"),
        ("memory", "open_streams_megabytes", OPEN_STREAMS_MEGABYTES_MAX,
         "the gateway takes {:.1f} MB with 1,000 open streams, the limit is {}"),
    ]
    return [
        text.format(results[part][name], limit) for part, name, limit, text in limits
        if part in results and results[part][name] > limit]


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return ((done.stdout + done.stderr).strip().splitlines() or ["?"])[0]


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    return {
        "cpu": model[1] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(),
        "load": os.getloadavg()[0], "nginx": first_line("nginx", "-v").rpartition("/")[2],
        "redis": re.sub(r".*v=(\S+).*", r"\1", first_line("redis-server", "--version")),
        "wrk": first_line("wrk", "-v").split(" [")[0].removeprefix("wrk ")}


def report(results):
    lines = []
    if set(results) - {"machine", "tokens", "decisions"}:
        lines.append(f"{'':36}{'ratio':>7}{'min-max':>13}{'limit':>7}{'tollgate':>12}{'nginx':>10}{'Redis':>8}")
    for part, label, unit, limit in (
        ("plain", "plain request, CPU", "us", f"{PLAIN_RATIO_MAX:.1f}"),
        ("secure", "plain request, HTTP/2 and TLS, CPU", "us", ""),
        ("streams", "streamed chunk, CPU", "us", f"{STREAM_RATIO_MAX:.1f}"),
    ):
        if part in results:
            one = results[part]
            spread = f"{one['ratio_min']:.2f}-{one['ratio_max']:.2f}"
            lines.append(
                f"{label:36}{one['ratio']:7.2f}{spread:>13}{limit:>7}{one['tollgate_cpu_us']:9.2f} {unit}"
                f"{one['nginx_cpu_us']:7.2f} {unit}{one['redis_cpu_us']:5.1f} {unit}")
    if "memory" in results:
        one = results["memory"]
        for label, name, limit in (
            ("resident memory after the start", "start_megabytes", IDLE_MEGABYTES_MAX),
            ("  after the first request", "idle_megabytes", IDLE_MEGABYTES_MAX),
            (f"  with {OPEN_STREAMS:,} open streams", "open_streams_megabytes", OPEN_STREAMS_MEGABYTES_MAX),
        ):
            lines.append(f"{label:36}{'':20}{limit:4d} MB{one[name]:9.1f} MB")
    if lines:
        lines.append("")
    if "memory" in results:
        lines.append(f"an idle gateway uses {results['memory']['idle_cpu_percent']:.2f} % of a core")
    if "plain" in results:
        counts = results["plain"]["instructions"]
        if all(counts.values()):
            lines.append(
                f"instructions a plain request: tollgate {counts['tollgate']:,.0f}, nginx {counts['nginx']:,.0f} "
                f"({counts['tollgate'] / counts['nginx']:.2f} x)")
        else:
            lines.append("instructions a request: no hardware counters here")
    if "streams" in results:
        reads = results["streams"]["chunks_per_read"]
        lines.append(f"chunks a read at the client: tollgate {reads['tollgate']:.2f}, nginx {reads['nginx']:.2f}")
    if "tokens" in results:
        lines += [*token_lines(results["tokens"]), ""]
    if "decisions" in results:
        lines += [*decision_lines(results["decisions"]), ""]
    for part, one in results.items():
        if "ledger" in one:
            ledger = one["ledger"]
            lines.append(
                f"ledger after {part}: {ledger['settled']:,} settled for {ledger['answers_seen']:,} answers seen, "
                f"drift {ledger['drift_nanousd']}")
    here = results["machine"]
    lines.append(
        f"{here['cores']} x {here['cpu']}, load {here['load']:.1f}, Linux {here['kernel']}, nginx {here['nginx']}, "
        f"wrk {here['wrk']}, Redis {here['redis']}")
    return "\n".join(lines)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--binary", default=os.path.join(root, ".build/release/tollgate"), help="the gateway to measure")
    parser.add_argument("--quick", action="store_true", help="about half a minute: fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="how often each side runs (default 9, quick 3)")
    names = ("plain", "secure", "streams", "memory", "tokens", "decisions")
    parser.add_argument("--only", action="append", choices=names, help="this part; repeatable")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    for tool in ("nginx", "wrk", "h2load", "openssl", "redis-server", "taskset"):
        if not shutil.which(tool):
            parser.error(f"{tool} is not installed; `make bench` installs it")
    if not os.access(options.binary, os.X_OK):
        parser.error(f"there is no {options.binary}; build it with `make build`, or name another with --binary")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the proxy, one for everything around it")
    # This process is the client of the streams.
    os.sched_setaffinity(0, {cores[1]})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 16_384 if hard == resource.RLIM_INFINITY else min(16_384, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def make_servers():
        return Servers(os.path.abspath(options.binary), cores[0], cores[1])

    rounds = options.rounds or (3 if options.quick else 9)
    parts = {
        "plain": lambda: measure_plain(make_servers, rounds, 2 if options.quick else 3),
        "secure": lambda: measure_secure(make_servers, rounds, 10_000 if options.quick else 20_000),
        "streams": lambda: measure_streams(make_servers, rounds, 200 if options.quick else 400),
        "memory": lambda: measure_memory(make_servers, 60 if options.quick else 120),
        "tokens": lambda: measure_tokens(
            root, os.path.abspath(options.binary), "small" if options.quick else "full",
            options.rounds or (1 if options.quick else 5)),
        "decisions": lambda: measure_decisions(os.path.abspath(options.binary), 10_000 if options.quick else 50_000),
    }
    results = {"machine": machine()}
    try:
        for part, measure in parts.items():
            if part in (options.only or parts):
                say(f"{part} ...")
                results[part] = measure()
    except BenchFailure as failure:
        sys.exit(f"bench: {failure}")
    missed = limits_missed(results)
    print(json.dumps({**results, "limits_missed": missed}, indent=2) if options.json else report(results))
    for line in missed:
        print("bench: limit missed: " + line, file=sys.stderr)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
