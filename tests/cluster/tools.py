"""Kafka's own tools move replicas and leaderships of a cluster of four."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

from harness import programs
from harness.cluster import Cluster
from harness.moves import reassign, wait_moved
from harness.programs import Tool
from harness.table import expect

from .records import Settings

TOPIC = "moved"
ASSIGNMENT = "1:2:3,2:3:1,3:1:2,4:1:2"
WANTED = {0: [4, 2, 3], 1: [2, 3], 2: [3, 1, 2, 4]}


def tool(cluster: Cluster, main: str, *arguments: str, wanted: int = 0) -> str:
    """Run one tool against broker 3; what it said."""
    command = programs.quick_kafka_tool(main, "--bootstrap-server", cluster.brokers[3].bootstrap, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    expect(f"{main} {' '.join(arguments)}: {said}", done.returncode, wanted)
    return said


def plan(home: Path, wanted: dict[int, list[int]]) -> list[str]:
    """A file for kafka-reassign-partitions, as its arguments."""
    path = home / "plan.json"
    partitions = [{"topic": TOPIC, "partition": at, "replicas": replicas} for at, replicas in wanted.items()]
    path.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return ["--reassignment-json-file", str(path)]


def replicas(cluster: Cluster) -> dict[int, list[int]]:
    return {at: list(part.replicas) for at, part in cluster.view(TOPIC, 2).parts.items()}


def moved(cluster: Cluster, home: Path) -> None:
    """Generate, execute, verify, cancel, list."""
    topics = home / "topics.json"
    topics.write_text(json.dumps({"version": 1, "topics": [{"topic": TOPIC}]}))
    proposed = tool(cluster, Tool.REASSIGN, "--topics-to-move-json-file", str(topics), "--broker-list", "2,3,4", "--generate")
    expect("a proposal", "Proposed partition reassignment" in proposed, True)
    asked = plan(home, WANTED)
    began = tool(cluster, Tool.REASSIGN, *asked, "--execute")
    expect(f"begun: {began}", "Successfully started partition reassignments" in began, True)
    wait_moved(cluster, 3)
    verified = tool(cluster, Tool.REASSIGN, *asked, "--verify")
    expect("completed", len(re.findall(rf"Reassignment of partition {TOPIC}-\d is completed", verified)), len(WANTED))
    expect("replicas", {at: held for at, held in replicas(cluster).items() if at in WANTED}, WANTED)
    expect("listed", "No partition reassignments found" in tool(cluster, Tool.REASSIGN, "--list"), True)
    # A target that is not there: the move waits, and is called off.
    cluster.brokers[1].kill()
    asked = plan(home, {0: [1, 2, 3]})
    expect("asked for", reassign(cluster.brokers[3].bootstrap, TOPIC, {0: [1, 2, 3]}), {0: 0})
    listed = tool(cluster, Tool.REASSIGN, "--list")
    expect(f"under way: {listed}", re.search(rf"{TOPIC}-0: replicas: 1,2,3,4\.? *adding: 1\.? *removing: 4", listed) is not None, True)
    tool(cluster, Tool.REASSIGN, *asked, "--cancel", "--preserve-throttles")
    expect("called off", "No partition reassignments found" in tool(cluster, Tool.REASSIGN, "--list"), True)
    expect("replicas as before", replicas(cluster)[0], WANTED[0])
    cluster.brokers[1].start()


def elected(cluster: Cluster) -> None:
    """Preferred leaders, and the unclean ones that there are not."""
    cluster.wait_caught_up(4, TOPIC, 4)
    cluster.brokers[4].kill()
    cluster.wait_led(TOPIC, 4, at=[1, 2, 3])
    cluster.brokers[4].start()
    # Nobody elects one that lacks something; what it led comes back by itself too, a little later.
    cluster.wait_caught_up(4, TOPIC, 4)
    said = tool(cluster, Tool.ELECTION, "--election-type", "preferred", "--all-topic-partitions")
    ended = "Successfully completed leader election" in said or "Valid replica already elected" in said
    expect(f"elected: {said}", ended, True)
    leaders = cluster.view(TOPIC, 1).leaders()
    expect("leaders", leaders, {at: held[0] for at, held in replicas(cluster).items()})
    again = tool(cluster, Tool.ELECTION, "--election-type", "preferred", "--topic", TOPIC, "--partition", "3")
    expect(f"again: {again}", "Valid replica already elected" in again, True)
    cluster.brokers[4].kill()
    deadline = time.monotonic() + 30
    while cluster.view(TOPIC, 1).leaders().get(3) in (None, 4) and time.monotonic() < deadline:
        time.sleep(0.1)
    away = tool(cluster, Tool.ELECTION, "--election-type", "preferred", "--topic", TOPIC, "--partition", "3", wanted=1)
    expect(f"away: {away}", "PreferredLeaderNotAvailable" in away, True)
    cluster.brokers[4].start()


def drained(cluster: Cluster) -> None:
    """kafka-configs drains a broker, and kafka-cluster unregisters it."""
    tool(cluster, Tool.REASSIGN, *plan(cluster.home, {2: [3, 1, 2]}), "--execute")
    wait_moved(cluster, 3)
    entity = ["--entity-type", "brokers", "--entity-name", "4"]
    tool(cluster, Tool.CONFIGS, "--alter", *entity, "--add-config", "ottla.drain=true")
    described = tool(cluster, Tool.CONFIGS, "--describe", *entity)
    expect(f"described: {described}", "ottla.drain=true" in described, True)
    deadline = time.monotonic() + 60
    while any(4 in held for held in replicas(cluster).values()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"broker 4 still has something: {replicas(cluster)}")
        time.sleep(0.3)
    cluster.brokers[4].stop()
    command = programs.quick_kafka_tool(Tool.CLUSTER, "unregister", "--bootstrap-server", cluster.brokers[3].bootstrap, "--id", "4")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    expect(f"unregistered: {done.stdout}{done.stderr}", done.returncode, 0)


def run(home: Path, port: int, _settings: Settings) -> bool:
    """kafka-reassign-partitions, kafka-leader-election, kafka-configs and kafka-cluster of Apache Kafka."""
    cluster = Cluster(home, 4, port=port, cluster_balance="false")
    try:
        cluster.start()
        tool(cluster, Tool.TOPICS, "--create", "--topic", TOPIC, "--replica-assignment", ASSIGNMENT)
        cluster.wait_led(TOPIC, 4)
        moved(cluster, home)
        elected(cluster)
        drained(cluster)
        return True
    finally:
        cluster.remove()
