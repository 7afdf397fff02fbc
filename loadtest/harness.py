"""What the programs of this folder share: free ports, started processes, tyr's configuration, CPU time.

Everything is on the loopback interface; every process is stopped by its own pid.
"""

import hashlib
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TICKS = os.sysconf("SC_CLK_TCK")

# Keys of the generated configuration; they open nothing but a node on this machine.
KEYS = {"load": "sk-tyr-loadtest-load", "limited": "sk-tyr-loadtest-limited"}


class Missing(Exception):
    """A program that is needed is not there."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def binary(name, profile):
    """The built program; TYR_BIN, MOCK_LLM_BIN, … name another one."""
    override = os.environ.get(name.upper().replace("-", "_") + "_BIN")
    folder = {"dev": "debug"}.get(profile, profile)
    candidates = [TARGET / folder / name, TARGET / folder / "examples" / name]
    for path in [pathlib.Path(override)] if override else candidates:
        if path.is_file():
            return str(path)
    raise Missing(f"{name} is not built: no {candidates[0]} (cargo build --profile {profile})")


class Process:
    """A started program with its output in a file."""

    def __init__(self, name, command, folder, env=None):
        self.name, self.command = name, [str(part) for part in command]
        self.log = pathlib.Path(folder) / f"{name}.log"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(env or {})}, cwd=folder)
        self.pid = self.child.pid

    def cpu_seconds(self, pid=None):
        """User and system time of all threads, in seconds (resolution: one clock tick)."""
        stat = pathlib.Path(f"/proc/{pid or self.pid}/stat").read_text()
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def thread_cpu_seconds(self, name):
        """The same of its threads of this name alone, which is cut to 15 characters."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == name:
                fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def children(self):
        """Pids of direct children (nginx works in one)."""
        path = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def alive(self):
        return self.child.poll() is None

    def tail(self):
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self):
        if not self.alive():
            return
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(10)


class Processes:
    """Starts programs and stops all of them at the end, whatever happened."""

    def __init__(self, folder):
        self.folder, self.all = folder, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.all):
            process.stop()

    def start(self, name, command, port, path="/", env=None, seconds=20):
        process = Process(name, command, self.folder, env)
        self.all.append(process)
        self.await_answer(process, port, path, seconds)
        return process

    def await_answer(self, process, port, path, seconds, host="127.0.0.1"):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not process.alive():
                raise RuntimeError(f"{process.name} ended with {process.child.returncode}:\n{process.tail()}")
            if answers(port, path, host):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{process.name} does not answer on {host}:{port} after {seconds} s:\n{process.tail()}")


def answers(port, path, host="127.0.0.1"):
    """Whether GET path gets an answer that is not a server error."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=1):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def start_mock(processes, profile, *args):
    port = free_port()
    command = [binary("mock-llm", profile), "--listen", f"127.0.0.1:{port}", *args]
    return processes.start("mock-llm", command, port, "/mock/stats"), port


def tyr_config(folder, listen, admin, upstream, limit, threads, host="127.0.0.1", role="viewer", store=None, more=""):
    """A node with everything on: keys, limits, budget, prices, store; far from any limit but one."""
    hashed = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    text = f"""version: 1
server:
  listen: {host}:{listen}
  admin_listen: {host}:{admin}
  data_dir: {folder}/data
  max_connections_per_address: 20000
  drain_grace: 1s
{f"  threads: {threads}" if threads else ""}
admin:
  tokens: [{{name: loadtest, role: {role}, value: env.TYR_LOADTEST_ADMIN}}]
store: {store or f"{{type: sqlite, path: {folder}/data/tyr.db}}"}
providers:
  - name: openai
    kind: openai
    base_url: http://127.0.0.1:{upstream}/v1
    allow_private_addresses: true
    keys: [{{name: main, value: env.TYR_LOADTEST_UPSTREAM}}]
models:
  - {{name: gpt-4o-mini, provider: openai, price: {{input: 0.15, cached_input: 0.075, output: 0.60}}, max_output_tokens: 16384}}
customers:
  - {{name: acme, budgets: [{{limit_usd: 1000000, every: 1M}}]}}
teams:
  - {{name: search, customer: acme, rate_limits: [{{requests: 1000000000, every: 1m}}]}}
virtual_keys:
  - name: load
    sha256: {hashed["load"]}
    team: search
    providers: [{{name: openai, models: ["*"]}}]
    rate_limits: [{{requests: 1000000000, every: 1m}}, {{tokens: 1000000000000, every: 1m}}]
    budgets: [{{limit_usd: 1000000, every: 1d}}]
  - name: limited
    sha256: {hashed["limited"]}
    providers: [{{name: openai, models: ["*"]}}]
    rate_limits: [{{requests: {limit}, every: 1m}}]
{more}"""
    path = pathlib.Path(folder) / "tyr.yaml"
    path.write_text(text)
    return path


def start_tyr(processes, profile, upstream, limit=50, threads=None):
    listen, admin = free_port(), free_port()
    config = tyr_config(processes.folder, listen, admin, upstream, limit, threads)
    env = {
        "TYR_LOADTEST_ADMIN": "loadtest-admin-token-0123456789abcdef",
        "TYR_LOADTEST_UPSTREAM": "sk-upstream",
        # Logging every request is not what is measured.
        "RUST_LOG": os.environ.get("RUST_LOG", "warn"),
    }
    command = [binary("tyr", profile), "serve", "--conf", config]
    wait_ready = {"port": admin, "path": "/readyz"}
    return processes.start("tyr", command, env=env, **wait_ready), listen


def machine():
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {gib:.0f} GiB, Linux {os.uname().release}"


def commit():
    git = ["git", "-C", str(ROOT)]
    try:
        short = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return short.stdout.strip() + (" with changes" if changed.stdout.strip() else "")
