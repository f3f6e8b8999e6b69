"""The servers of a benchmark: started on free loopback ports, pinned to cores, ended by process id.

Everything lives in one temporary directory that goes with them. Nothing here measures; see bench.py.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

START_SECONDS = 20
STOP_SECONDS = 15
ALL_CORES = ",".join(map(str, sorted(os.sched_getaffinity(0))))

NGINX = """\
worker_processes 1; daemon off; pid {directory}/{name}.pid; error_log {directory}/{name}.log warn; {user}
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 100000000; client_body_buffer_size 64k;
    client_body_temp_path {directory}/{name}.body; proxy_temp_path {directory}/{name}.proxy;
    fastcgi_temp_path {directory}/{name}.f; uwsgi_temp_path {directory}/{name}.u; scgi_temp_path {directory}/{name}.s;
    {servers}
}}
"""

# Answers every request with the same bytes, as a node that takes no time.
BACKEND = """\
server {{ listen 127.0.0.1:{port}; default_type application/json; location / {{ return 200 '{answer}'; }} }}
"""

# What the gateway is held against: nginx as it is set up to relay a model server.
PROXY = """\
upstream {name} {{ server {backend}; keepalive 128; keepalive_requests 100000000; }}
server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://{name}; proxy_http_version 1.1; proxy_set_header Connection ""; {extra} }}
}}
"""

# The same over TLS with HTTP/2.
SECURE_PROXY = PROXY.replace("listen 127.0.0.1:{port};", """listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;""")

GATEWAY = """\
listen: 127.0.0.1:{port}
{tls}
admin: {{ listen: "127.0.0.1:{admin_port}", token: {token} }}
redis: {{ url: "redis://127.0.0.1:{redis_port}/0" }}
journal: {{ directory: {directory}/journal }}
access_log: {directory}/access.log
{event_loops}
models: [ {{ id: bench, price: {{ input: 0.05, cached_input: 0.01, output: 0.08 }} }} ]
sites: [ {{ id: here, rtt: 1ms }} ]
nodes:
{nodes}
org_defaults: {{ rpm: 100000000, tpm: 1000000000000, concurrency: 100000, keys: 10 }}
"""


class BenchFailure(Exception):
    """Something that makes the figures worthless; its text says what."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_seconds(pid):
    """User and system time of all threads of a process so far.

    The kernel's own CPU clock of the process: what utime + stime of /proc/PID/stat round to hundredths of a second.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise BenchFailure(f"process {pid} has ended")


def children(pid):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            continue
    return found


class Servers:
    """A context: what is started within it is ended with it, the last first."""

    def __init__(self, binary, proxy_core, other_core):
        self.binary, self.proxy_core, self.other_core = binary, proxy_core, other_core
        self.processes = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="tollgate-bench-")
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, name, command, core=None, environment=None):
        """Starts a server in the background, its output in NAME.out and NAME.err; on every core unless one is named."""
        # taskset becomes the server: the process id stays. Without it this process's own core would be inherited.
        cores = ALL_CORES if core is None else str(core)
        command = ["taskset", "-c", cores] + command
        with open(self.path(name + ".out"), "wb") as out, open(self.path(name + ".err"), "wb") as err:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.directory,
                env={**os.environ, **(environment or {})})
        process.name = name
        self.processes.append(process)
        return process

    def wait_for(self, process, is_ready):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                if is_ready():
                    return process
            except OSError:
                pass
            time.sleep(0.05)
        with open(self.path(process.name + ".err"), errors="replace") as file:
            raise BenchFailure(f"{process.name} did not start: {file.read()[-500:].strip()}")

    def accepts(self, port):
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    def redis(self, pinned=True):
        port = free_port()
        process = self.start(
            "redis",
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", self.directory, "--save", "",
             "--appendonly", "yes", "--appendfsync", "everysec"], core=self.other_core if pinned else None)
        self.wait_for(process, lambda: self.accepts(port))
        return process.pid, port

    def nginx(self, name, server, port, core):
        """Returns the process id of its one worker."""
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        with open(self.path(name + ".conf"), "w") as file:
            file.write(NGINX.format(directory=self.directory, name=name, user=user, servers=server))
        process = self.start(
            name, ["nginx", "-e", self.path(name + ".log"), "-p", self.directory, "-c", self.path(name + ".conf")],
            core=core)
        self.wait_for(process, lambda: self.accepts(port) and len(children(process.pid)) == 1)
        return children(process.pid)[0]

    def backend(self, answer):
        """nginx with one fixed answer. Returns its address."""
        port = free_port()
        self.nginx("backend", BACKEND.format(port=port, answer=answer), port, self.other_core)
        return f"127.0.0.1:{port}"

    def proxy(self, backend, extra=""):
        """nginx in front of `backend`. Returns the worker's process id and the port."""
        port = free_port()
        server = PROXY.format(name="backend", backend=backend, port=port, extra=extra)
        return self.nginx("proxy", server, port, self.proxy_core), port

    def certificate(self):
        """A self-made one for loopback. Returns the paths of certificate and key."""
        certificate, key = self.path("cert.pem"), self.path("key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True)
        return certificate, key

    def secure_proxy(self, backend, certificate, key):
        """As ``proxy``, over TLS with HTTP/2."""
        port = free_port()
        server = SECURE_PROXY.format(
            name="backend", backend=backend, port=port, extra="", certificate=certificate, key=key)
        return self.nginx("proxy", server, port, self.proxy_core), port

    def simulated_node(self, name, speed, model="node-model", options=(), pinned=True):
        """A simulated GPU node. Returns its address."""
        process = self.start(
            name, [self.binary, "simulate", "node", "--port", "0", "--model", model, "--speed", str(speed),
                   "--json", *options], core=self.other_core if pinned else None)
        self.wait_for(process, lambda: os.path.getsize(self.path(name + ".out")) > 0)
        with open(self.path(name + ".out")) as file:
            return f"127.0.0.1:{json.load(file)['port']}"

    def gateway(self, backends, redis_port, concurrency, pinned=True, tls=None):
        """`tls` is the pair of paths that ``certificate`` returns."""
        nodes = "".join(
            f'  - {{ id: n{index}, site: here, url: "http://{address}", engine: vllm, class: h100, '
            f"models: {{ bench: node-model }}, max_concurrency: {concurrency} }}\n"
            for index, address in enumerate(backends))
        return self.gateway_of(
            GATEWAY, pinned, redis_port=redis_port, nodes=nodes,
            tls="tls: {{ certificate: {}, key: {} }}".format(*tls) if tls else "",
            event_loops="event_loops: 1" if pinned else "")

    def gateway_of(self, configuration, pinned=False, **fields):
        """A gateway of a configuration, once its nodes are ready; `fields` are what the text asks for besides its own."""
        gateway = Gateway(self, configuration, pinned, fields)
        self.wait_for(gateway.process, gateway.is_ready)
        self.wait_for(gateway.process, gateway.has_nodes)
        return gateway


class Gateway:
    """`tollgate serve` with every feature on, and the commands to ask it."""

    def __init__(self, servers, configuration, pinned, fields):
        self.servers = servers
        self.port, self.admin_port = free_port(), free_port()
        self.token = secrets.token_hex(16)
        with open(servers.path("tollgate.yaml"), "w") as file:
            file.write(configuration.format(
                port=self.port, admin_port=self.admin_port, token=self.token, directory=servers.directory, **fields))
        self.process = servers.start(
            "tollgate", [servers.binary, "serve", "--config", servers.path("tollgate.yaml")],
            core=servers.proxy_core if pinned else None,
            environment={"TOLLGATE_PEPPER": "bench:" + secrets.token_hex(16)})
        self.pid = self.process.pid

    def is_ready(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=2) as answer:
            return answer.status == 200

    def has_nodes(self):
        """Whether every node has been probed and takes requests."""
        return all(node["state"] == "ready" for node in self.command("node", "list"))

    def command(self, *arguments):
        """Runs `tollgate ... --json` and returns what it printed."""
        done = subprocess.run(
            [self.servers.binary, *arguments, "--json"], capture_output=True, text=True, timeout=60,
            env={**os.environ, "TOLLGATE_ADMIN_URL": f"http://127.0.0.1:{self.admin_port}",
                 "TOLLGATE_ADMIN_TOKEN": self.token})
        if done.returncode != 0:
            raise BenchFailure(f"tollgate {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
        return json.loads(done.stdout)

    def create_key(self):
        self.command("org", "create", "bench", "--credit", "1000000")
        return self.command("key", "create", "--org", "bench")["key"]

    def ledger(self):
        """What the ledger says once nothing is open any more: settled requests, tokens, drift."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            verified = self.command("ledger", "verify", "--org", "bench")
            if verified["open_reservations"] == 0 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        usage = self.command("usage", "--org", "bench")
        return {
            # All entries but the opening top-up are settles.
            "settled": verified["entries"] - 1,
            "drift_nanousd": verified["drift_nanousd"],
            "open_reservations": verified["open_reservations"],
            "requests": sum(row["requests"] for row in usage),
            "completion_tokens": sum(row["completion_tokens"] for row in usage),
        }
