"""A cluster of real nodes for `cluster-figures`, `bench-cpu` and `run`: one Postgres, one node each
on 127.0.0.1, 127.0.0.2 and so on, on the same free ports.

Promise: every process is one of the `Processes` that are passed in, and ends with them.
"""

import glob
import os
import pathlib
import pwd
import shutil
import subprocess
import time

import harness

SECRET = "a-secret-of-clusters-under-test-0001"
ADMIN = "loadtest-admin-token-0123456789abcdef"


class Node:
    """One gateway: its process, its address, its ports."""

    def __init__(self, process, host, listen, admin):
        self.process, self.host, self.listen, self.admin = process, host, listen, admin


def postgres_bin():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    path = found[-1] if found else os.path.dirname(shutil.which("initdb") or "")
    if not path:
        raise harness.Missing("Postgres is not installed: scripts/apt-packages no-initdb=postgresql")
    return pathlib.Path(path)


def start_postgres(processes, folder):
    """An empty database on a free port; its URL. It does not run as root."""
    folder, port, programs = folder / "postgres", harness.free_port(), postgres_bin()
    folder.mkdir()
    prefix = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        os.chmod(processes.folder, 0o755)
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
    init = [programs / "initdb", "-D", folder / "data", "-U", "tyr", "--auth=trust", "--no-sync",
            "--encoding=UTF8", "--locale=C.UTF-8"]
    subprocess.run([str(part) for part in [*prefix, *init]], check=True, timeout=60, stdout=subprocess.DEVNULL)
    command = [*prefix, programs / "postgres", "-D", folder / "data", "-k", folder, "-h", "127.0.0.1",
               "-p", port, "-c", "logging_collector=off", "-c", "max_connections=200"]
    process = harness.Process("postgres", command, folder.parent)
    processes.all.append(process)
    create = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "tyr", "tyr"]
    end = time.monotonic() + 60
    while subprocess.run(create, stderr=subprocess.DEVNULL, check=False, timeout=10).returncode != 0:
        if not process.alive() or time.monotonic() > end:
            raise RuntimeError(f"Postgres does not start:\n{process.tail()}")
        time.sleep(0.1)
    return f"postgres://tyr@127.0.0.1:{port}/tyr?sslmode=disable"


def start_fleet(processes, profile, upstream, count, limit=50, threads=None, seconds=60):
    """`count` nodes that are ready; with one there is no cluster, but its store is Postgres too."""
    base = pathlib.Path(processes.folder) / f"fleet-{count}"
    base.mkdir()
    url = start_postgres(processes, base)
    listen, admin, gossip, grpc = (harness.free_port() for _ in range(4))
    hosts = [f"127.0.0.{number}" for number in range(1, count + 1)]
    peers = ", ".join(f'"{host}:{gossip}"' for host in hosts)
    env = {
        "TYR_LOADTEST_ADMIN": ADMIN,
        "TYR_LOADTEST_UPSTREAM": "sk-upstream",
        "TYR_LOADTEST_POSTGRES": url,
        "TYR_LOADTEST_SECRET": SECRET,
        "RUST_LOG": os.environ.get("RUST_LOG", "warn"),
    }
    nodes = []
    for number, host in enumerate(hosts, 1):
        folder = base / f"n{number}"
        folder.mkdir()
        cluster = f"""cluster:
  enabled: true
  name: loadtest
  node_id: n{number}
  secret: env.TYR_LOADTEST_SECRET
  peers: [{peers}]
  gossip: {{bind: {host}, port: {gossip}}}
  grpc: {{port: {grpc}}}
"""
        config = harness.tyr_config(
            folder, listen, admin, upstream, limit, threads, host=host, role="admin",
            store="{type: postgres, url: env.TYR_LOADTEST_POSTGRES}", more=cluster if count > 1 else "")
        process = harness.Process(f"n{number}", [harness.binary("tyr", profile), "serve", "--conf", config], base, env)
        processes.all.append(process)
        nodes.append(Node(process, host, listen, admin))
    for node in nodes:
        processes.await_answer(node.process, admin, "/readyz", seconds, node.host)
    return nodes
