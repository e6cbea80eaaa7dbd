"""Rolls a fleet of two from an older version to this one under load, back, and forth again.

    .venv/bin/python -m deploy.testing.upgrade --old REF [--callers 12]

Over a real Postgres and a real Redis. The older version is checked out beside this one, and runs on the same
libraries. Callers ask without a pause, streams and whole answers on both surfaces, of whatever replica the
list of a load balancer has at the moment: a replica is taken off it before its SIGTERM, as by Kubernetes.
Fails when a request failed during the rolls, when the ledger's sums do not hold, or when it differs from what
the model did. Going back needs a stop of all: how long nobody was served is told.
"""

import argparse
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.databases import ask
from tests.engines import wait_until
from tests.fleet.callers import Load, Told
from tests.fleet.counted_model import CountedModel, Order
from tests.gateways import SECRET, Gateway
from tests.postgres_server import PostgresServer
from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent.parent
# As the preStop hook of deploy/kubernetes waits, in little.
OFF_THE_LIST_S = 1.0
BETWEEN_S = 3.0
SHORT = Order(tokens=8, gap_s=0.005)
# Streams that are in the midst of an answer whenever a replica is told to stop.
LONG = Order(tokens=150, gap_s=0.02)


@contextmanager
def checked_out(ref: str, folder: Path) -> Iterator[Path]:
    """The older version's tree, with its own migrations where its package looks for them."""
    tree = folder / "old"
    git = ["git", "-C", str(ROOT)]
    subprocess.run([*git, "worktree", "add", "--detach", "--quiet", str(tree), ref], check=True)
    try:
        (tree / "gateway" / "migrations").symlink_to(tree / "migrations")
        yield tree
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def set_version(replica: Gateway, tree: Path) -> None:
    """With the settings that it knows: a gateway refuses others."""
    replica.environment["PYTHONPATH"] = str(tree)
    replica.environment.pop("GATEWAY_OPS_BIND", None)
    if "GATEWAY_OPS_BIND" in (tree / "gateway" / "config.py").read_text():
        replica.environment["GATEWAY_OPS_BIND"] = "127.0.0.1:0"


def is_ready(replica: Gateway) -> bool:
    return httpx.get(f"{replica.url}/readyz", timeout=5, trust_env=False).status_code == 200


def start(replica: Gateway, balanced: list[str]) -> None:
    replica.start()
    assert wait_until(lambda: is_ready(replica), 60), replica.log.read_text()[-2000:]
    balanced.append(replica.url)


def stop(replica: Gateway, balanced: list[str]) -> float:
    """Off the list, then SIGTERM; how many seconds its drain took."""
    if len(balanced) > 1:
        balanced.remove(replica.url)
    time.sleep(OFF_THE_LIST_S)
    began = time.monotonic()
    replica.terminate()
    code = replica.wait(150)
    assert code == 0, f"exit code {code}: {replica.log.read_text()[-2000:]}"
    return time.monotonic() - began


def roll(replicas: list[Gateway], tree: Path, balanced: list[str]) -> list[float]:
    """One after the other to the version of `tree`."""
    drains = []
    for replica in replicas:
        drains.append(stop(replica, balanced))
        set_version(replica, tree)
        start(replica, balanced)
        time.sleep(BETWEEN_S)
    return drains


def go_back(replicas: list[Gateway], new: Path, old: Path, to: str, balanced: list[str]) -> float:
    """Stop all, undo the newer version's migrations by its own command, start the older one.

    How many seconds nobody was served.
    """
    for replica in replicas:
        stop(replica, balanced)
    began = time.monotonic()
    set_version(replicas[0], new)
    undone = replicas[0].json("migrate", "--back-to", to, "--yes")["undone"]
    balanced.clear()
    for replica in replicas:
        set_version(replica, old)
        start(replica, balanced)
        if replica is replicas[0]:
            took_s = time.monotonic() - began
    print(f"back to {to}: {len(undone)} migrations undone, nobody served for {took_s:.1f} s")
    return took_s


def verify(replica: Gateway, model: CountedModel) -> None:
    """The ledger's sums hold, nothing is open, and it has what the model did: no more and no less."""
    url = replica.database_url
    assert wait_until(lambda: not ask(url, "SELECT 1 FROM ledger WHERE evidence = 'intent'"), 60)
    done = replica.command("verify-ledger")
    assert done.returncode == 0, done.stdout + done.stderr
    entries = {row["reservation_id"]: row["tokens"] for row in ask(url, "SELECT * FROM ledger")}
    wrong = {one: (entries.get(one), model.cost_of(one)) for one in model.works}
    wrong = {one: pair for one, pair in wrong.items() if pair[0] != pair[1]}
    assert not wrong, f"{len(wrong)} differ from what the model did: {list(wrong.items())[:5]}"
    assert not model.repeated, "a request was sent twice"
    print(f"verify-ledger: {done.stdout.strip().splitlines()[-1]} {len(entries)} entries, as the model did")


def tell(what: str, told: list[Told]) -> None:
    failed = [one for one in told if one.status != 200 or not one.is_complete]
    took = sorted(one.took_s for one in told)
    p99 = took[int(len(took) * 0.99)] if took else 0.0
    print(f"{what}: {len(told)} requests, {len(failed)} failed, p99 {p99:.2f} s")
    statuses = Counter((one.status, one.error) for one in failed)
    assert not failed, f"requests failed: {statuses}"


def newest_migration(tree: Path) -> str:
    return max(
        path.stem for path in (tree / "migrations" / "postgres").glob("*.sql") if "rollback" not in path.name
    )


def trial(old: Path, folder: Path, callers: int) -> None:
    with PostgresServer() as postgres, RedisServer() as redis, CountedModel() as model:
        settings = {
            "DATABASE_URL": postgres.url(postgres.new_database()),
            "REDIS_URL": redis.url,
            "GATEWAY_REDIS_TIMEOUT_S": "1",
            "GATEWAY_SECRET": SECRET,
            "OLLAMA_BACKENDS": f"counted={model.url}",
        }
        replicas = [Gateway(folder / name, **settings) for name in ("one", "two")]
        balanced: list[str] = []
        try:
            for replica in replicas:
                set_version(replica, old)
            done = replicas[0].command("migrate")
            assert done.returncode == 0, done.stderr
            replicas[0].json("create-tenant", "--name", "acme", "--concurrent", "1000")
            key = replicas[0].json("create-key", "--tenant", "acme", "--name", "ci")["key"]
            for replica in replicas:
                start(replica, balanced)

            with Load(balanced, key, SHORT, callers=callers) as load, Load(balanced, key, LONG, 4) as long:
                time.sleep(BETWEEN_S)
                drains = roll(replicas, ROOT, balanced)
            tell(
                f"upgrade under load (drains {', '.join(f'{s:.1f}' for s in drains)} s)",
                load.told + long.told,
            )
            verify(replicas[0], model)

            go_back(replicas, ROOT, old, newest_migration(old), balanced)
            with Load(balanced, key, SHORT, callers=callers) as load:
                time.sleep(BETWEEN_S)
            tell("after going back", load.told)
            verify(replicas[0], model)

            with Load(balanced, key, SHORT, callers=callers) as load, Load(balanced, key, LONG, 4) as long:
                drains = roll(replicas, ROOT, balanced)
            tell("upgraded again", load.told + long.told)
            verify(replicas[0], model)
        finally:
            for replica in replicas:
                replica.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description="Roll a fleet between two versions under load.")
    arguments.add_argument("--old", required=True, help="the older version: a tag or commit")
    arguments.add_argument("--callers", type=int, default=12)
    given = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="gw-upgrade-") as folder,
        checked_out(given.old, Path(folder)) as old,
    ):
        print(f"from {given.old} ({newest_migration(old)}) to this ({newest_migration(ROOT)})")
        trial(old, Path(folder), given.callers)


if __name__ == "__main__":
    main()
