"""Links between brokers that can be cut: a program that forwards TCP, and the handle of those who start it.

Each broker advertises its proxy's port to its peers. The proxy finds out which broker opened a connection by the process behind the connection's other
end. A cut link carries nothing and breaks nothing: what is on its way waits, as packets do that are sent again and again, and new connections hang.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PIECE = 1 << 16
Link = tuple[int, int]
"""From one broker to another."""


def inode_of(port: int, to: int) -> str:
    """The socket of the connection from one port of this machine to another, as the kernel numbers it."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        here, there = (int(address.rsplit(":", 1)[1], 16) for address in fields[1:3])
        if (here, there) == (port, to):
            return fields[9]
    return ""


def holds(pid: int, inode: str) -> bool:
    """Whether a process has that socket."""
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == f"socket:[{inode}]" for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


@dataclass
class Caller:
    """Whoever opened a connection."""

    inode: str
    broker: int = 0
    """0 until it is known which broker that is."""


class Forwarder:
    """What runs in the program. Commands come as lines of JSON."""

    def __init__(self, ways: dict[int, Link]) -> None:
        """`ways`: for each broker the proxy's port and its own."""
        self.ways = ways
        self.pids: dict[int, int] = {}
        self.callers: list[Caller] = []
        self.cut: set[Link] = set()
        self.changed = asyncio.Condition()

    async def run(self) -> None:
        for broker, (port, target) in self.ways.items():
            await asyncio.start_server(lambda r, w, b=broker, p=port, t=target: self.accept(b, p, t, r, w), "127.0.0.1", port)
        print("ready", flush=True)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            command = json.loads(line)
            async with self.changed:
                self.pids = {int(broker): pid for broker, pid in command["pids"].items()}
                for caller in self.callers:
                    self.find(caller)
                self.cut = {(source, to) for source, to in command["cut"]}
                self.changed.notify_all()
            print("done", flush=True)

    def find(self, caller: Caller) -> None:
        """Which broker is it?"""
        if not caller.broker and caller.inode:
            caller.broker = next((broker for broker, pid in self.pids.items() if holds(pid, caller.inode)), 0)

    async def accept(self, broker: int, port: int, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = Caller(inode_of(writer.get_extra_info("peername")[1], port))
        self.find(caller)
        self.callers.append(caller)
        try:
            await self.wait_open(lambda: {(caller.broker, broker), (broker, caller.broker)})
            onward, back = await asyncio.open_connection("127.0.0.1", target)
            there = asyncio.create_task(self.pump(reader, back, lambda: {(caller.broker, broker)}))
            here = asyncio.create_task(self.pump(onward, writer, lambda: {(broker, caller.broker)}))
            await asyncio.wait({there, here})
        except OSError:
            writer.close()
        finally:
            self.callers.remove(caller)

    async def wait_open(self, links: Callable[[], set[Link]]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: not links() & self.cut)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, links: Callable[[], set[Link]]) -> None:
        try:
            while piece := await reader.read(PIECE):
                if self.cut:
                    await self.wait_open(links)
                writer.write(piece)
                await writer.drain()
            await self.wait_open(links)
        except OSError:
            pass
        finally:
            writer.close()


class Links:
    """The program, from outside."""

    def __init__(self, ways: dict[int, Link]) -> None:
        command = [sys.executable, __file__, json.dumps(ways)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pids: dict[int, int] = {}
        self.cut: list[Link] = []
        self.answer("ready")

    def answer(self, wanted: str) -> None:
        assert self.process.stdout is not None
        if (line := self.process.stdout.readline().strip()) != wanted:
            raise RuntimeError(f"the links' program says {line!r} instead of {wanted!r}")

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"pids": self.pids, "cut": self.cut}) + "\n")
        self.process.stdin.flush()
        self.answer("done")

    def know(self, pids: dict[int, int]) -> None:
        """Which process each broker is."""
        self.pids = pids
        self.tell()

    def cut_off(self, links: list[Link]) -> None:
        """Cut these links, and no others."""
        self.cut = links
        self.tell()

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    asyncio.run(Forwarder({int(broker): (way[0], way[1]) for broker, way in json.loads(sys.argv[1]).items()}).run())
