"""Starts mock-llm and tyr as processes on free loopback ports.

Waits poll a condition until a deadline; processes are ended by their id.
"""

import json
import os
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-tyr-sdk-000000000000000001"
NARROW_KEY = "sk-tyr-sdk-000000000000000002"
LIMITED_KEY = "sk-tyr-sdk-000000000000000003"
SPENT_KEY = "sk-tyr-sdk-000000000000000004"
ADMIN = "sdk-admin-token-000001"


def binary(variable, name):
    """The binary under test: from the environment, else the debug build."""
    given = os.environ.get(variable)
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = Path(given) if given else folder / "debug" / name
    assert path.exists(), f"{path} is missing: build it, or set {variable}"
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, condition, seconds=15):
    """Polls until `condition` gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Process:
    def __init__(self, name, command, log):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def alive(self):
        return self.child.poll() is None

    def end(self):
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def await_ready(self, url):
        def ready():
            assert self.alive(), f"{self.name} ended:\n{self.log.read_text(errors='replace')}"
            return status_of(url) == 200

        eventually(f"{self.name} is ready", ready, 30)


class Mock:
    """One mock-llm."""

    def __init__(self, folder, *arguments):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [binary("MOCK_BIN", "mock-llm"), "--listen", f"127.0.0.1:{self.port}", *arguments]
        self.process = Process("mock-llm", command, Path(folder) / "mock.log")
        self.process.await_ready(f"{self.url}/mock/stats")

    def stats(self):
        with urllib.request.urlopen(f"{self.url}/mock/stats", timeout=5) as answer:
            return json.load(answer)

    def requests(self):
        return self.stats()["requests"]

    def paths(self):
        return self.stats()["by_path"]


class Tyr:
    """One tyr in front of a mock."""

    def __init__(self, folder, mock):
        self.folder = Path(folder)
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        path = self.folder / "tyr.yaml"
        path.write_text(configuration(self, mock))
        command = [binary("TYR_BIN", "tyr"), "serve", "--conf", path]
        self.process = Process("tyr", command, self.folder / "tyr.log")
        self.process.await_ready(f"{self.admin}/readyz")

    def records(self):
        """All usage records, oldest first."""
        connection = sqlite3.connect(f"file:{self.folder}/tyr.db?mode=ro", uri=True, timeout=5)
        try:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM usage_record ORDER BY request_id")
            return [dict(row) for row in rows]
        finally:
            connection.close()


def configuration(tyr, mock):
    """Four keys: a free one, one for one model, one with one request, one with no money."""
    return f"""version: 1
server:
  listen: 127.0.0.1:{tyr.port}
  admin_listen: 127.0.0.1:{tyr.admin_port}
  data_dir: {tyr.folder}/data
  drain_grace: 5s
admin:
  tokens: [{{name: sdk, role: admin, value: {ADMIN}}}]
store:
  type: sqlite
  path: {tyr.folder}/tyr.db
providers:
  - name: openai
    kind: openai
    base_url: {mock.url}/v1
    allow_private_addresses: true
    keys: [{{name: main, value: sk-upstream-openai-0001}}]
    retries: {{max: 0}}
  - name: anthropic
    kind: anthropic
    base_url: {mock.url}
    allow_private_addresses: true
    keys: [{{name: main, value: sk-upstream-anthropic-0001}}]
    retries: {{max: 0}}
models:
  - {{name: gpt-4o-mini, provider: openai, price: {{input: 0.15, cached_input: 0.075, output: 0.60}}, max_output_tokens: 16384}}
  - {{name: gpt-5-codex, provider: openai, price: {{input: 1.25, cached_input: 0.125, output: 10}}, max_output_tokens: 128000}}
  - {{name: gpt-3.5-turbo-instruct, provider: openai, price: {{input: 1.5, output: 2}}, max_output_tokens: 4096}}
  - {{name: text-embedding-3-small, provider: openai, price: {{input: 0.02, output: 0}}}}
  - {{name: claude-haiku-4-5, provider: anthropic, price: {{input: 1, cache_read: 0.10, cache_write: 1.25, cache_write_1h: 2, output: 5}}, max_output_tokens: 64000}}
virtual_keys:
  - {{name: sdk, value: {KEY}, providers: [{{name: openai}}, {{name: anthropic}}]}}
  - {{name: narrow, value: {NARROW_KEY}, providers: [{{name: openai, models: [gpt-4o-mini]}}, {{name: anthropic, models: []}}]}}
  - name: limited
    value: {LIMITED_KEY}
    providers: [{{name: openai}}, {{name: anthropic}}]
    rate_limits: [{{requests: 1, every: 1h}}]
  - name: spent
    value: {SPENT_KEY}
    providers: [{{name: openai}}, {{name: anthropic}}]
    budgets: [{{limit_usd: 0.000000001, every: 1M, enforcement: strict}}]
"""


class Stack:
    """A mock and a tyr in front of it; ends both."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tyr-sdk-")
        self.mock = Mock(self.folder.name)
        try:
            self.tyr = Tyr(self.folder.name, self.mock)
        except BaseException:
            self.mock.process.end()
            raise

    def end(self):
        # What the tests look at is in the store by now: no drain is waited for.
        self.tyr.process.child.kill()
        self.mock.process.child.kill()
        self.tyr.process.child.wait()
        self.mock.process.child.wait()
        self.folder.cleanup()


if __name__ == "__main__":
    # For suites in other languages: prints the addresses as one line of JSON
    # and runs until standard input ends.
    import sys

    stack = Stack()
    facts = {
        "tyr": stack.tyr.url,
        "admin": stack.tyr.admin,
        "mock": stack.mock.url,
        "folder": stack.folder.name,
        "key": KEY,
        "narrowKey": NARROW_KEY,
        "limitedKey": LIMITED_KEY,
        "spentKey": SPENT_KEY,
    }
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        # Any line asks for the usage records.
        # The node that settled a record stands there as bytes.
        print(json.dumps(stack.tyr.records(), default=bytes.hex), flush=True)
    stack.end()
