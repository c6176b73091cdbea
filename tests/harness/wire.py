"""A raw Kafka connection: just enough of the protocol to see what a broker stores and answers, byte for byte.

Real clients hide error codes behind retries and decompress what they read; this shows both.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .table import eventually

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_FETCH, DESCRIBE_GROUPS = 0, 1, 2, 3, 9, 15
CREATE_TOPICS, INCREMENTAL_ALTER_CONFIGS, CONSUMER_GROUP_DESCRIBE = 19, 44, 69
OFFSET_OUT_OF_RANGE, CORRUPT_MESSAGE, UNKNOWN_TOPIC, TOPIC_EXISTS, KAFKA_STORAGE_ERROR = 1, 2, 3, 36, 56
LEADERLESS = (3, 5, 6)
"""Codes of a broker that has just started: unknown partition, leader not available, not the leader."""
COORDINATORLESS = (14, 15)
"""Codes of a broker that has just started: coordinator loading, not available."""
NOT_COORDINATOR = 16
RETRY_SECONDS = 30.0
LATEST, EARLIEST = -1, -2
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
BATCH_HEADER = struct.Struct(">qiibIhiqqqhii")
BATCH_HEADER_BYTES = 61
CRC_COVERS_FROM = 21
RESOURCE_TOPIC, SET = 2, 0


def crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Batch:
    """One stored record batch (version 2)."""

    base_offset: int
    leader_epoch: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    base_sequence: int
    records: int
    raw: bytes

    @property
    def codec(self) -> str:
        return CODECS[self.attributes & 7]

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    def intact(self) -> bool:
        """Whether the checksum over everything from the attributes on holds."""
        return crc32c(self.raw[CRC_COVERS_FROM:]) == struct.unpack_from(">I", self.raw, 17)[0]


def batches(data: bytes) -> Iterator[Batch]:
    """The whole batches in a fetch answer; a partial one at its end is left out, as the protocol has it."""
    at = 0
    while at + BATCH_HEADER_BYTES <= len(data):
        header = BATCH_HEADER.unpack_from(data, at)
        base, length, epoch, magic, _crc, attributes, delta, first, last, producer, _, sequence, count = header
        end = at + 12 + length
        if magic != 2:
            raise ValueError(f"batch at offset {base} has magic {magic}")
        if end > len(data):
            return
        yield Batch(base, epoch, attributes, delta, first, last, producer, sequence, count, data[at:end])
        at = end


def varint(value: int) -> bytes:
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def batch_of(values: list[bytes], timestamp: int) -> bytes:
    """An uncompressed batch of records that have values only, without a producer id."""
    body = b""
    for delta, value in enumerate(values):
        record = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
        body += varint(len(record)) + record
    count = len(values)
    covered = struct.pack(">hiqqqhii", 0, count - 1, timestamp, timestamp, -1, -1, -1, count) + body
    return struct.pack(">qiibI", 0, len(covered) + 9, -1, 2, crc32c(covered)) + covered


def string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def compact(text: str) -> bytes:
    """A string in the versions with tagged fields."""
    return uvarint(len(text.encode()) + 1) + text.encode()


class NotCoordinator(ValueError):
    """Another broker coordinates the group."""


class Reader:
    """Reads the fields of an answer in order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple:
        fields = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(">" + layout)
        return fields

    def number(self, layout: str) -> int:
        return self.take(layout)[0]

    def bytes(self, length: int) -> bytes:
        taken = self.data[self.at : self.at + max(length, 0)]
        self.at += len(taken)
        return taken

    def string(self) -> str:
        return self.bytes(self.number("h")).decode()

    def uvarint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.number("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def compact(self) -> str:
        return self.bytes(self.uvarint() - 1).decode()

    def tags(self) -> None:
        for _ in range(self.uvarint()):
            self.uvarint()
            self.bytes(self.uvarint())


class Wire:
    """One connection to one broker."""

    def __init__(self, bootstrap: str, timeout: float = 30.0) -> None:
        host, port = bootstrap.split(",")[0].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.correlation = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()

    def request(self, api: int, version: int, body: bytes, answered: bool = True, tagged: bool = False) -> Reader:
        """With `tagged`, in a version whose header has tagged fields."""
        self.correlation += 1
        head = struct.pack(">hhi", api, version, self.correlation) + string("ottla-tests")
        frame = head + (b"\0" if tagged else b"") + body
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        if not answered:
            return Reader(b"")
        answer = Reader(self.exactly(struct.unpack(">i", self.exactly(4))[0]))
        if answer.number("i") != self.correlation:
            raise ValueError("an answer to another request")
        if tagged:
            answer.tags()
        return answer

    def exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return bytes(data)

    def create_topic(self, topic: str, partitions: int = 1, **configs: str) -> int:
        """The error code, once every partition is led. In config names _ stands for the dot; a topic may exist."""
        pairs = b"".join(string(key.replace("_", ".")) + string(value) for key, value in configs.items())
        fields = struct.pack(">ihi", partitions, -1, 0) + struct.pack(">i", len(configs)) + pairs
        body = struct.pack(">i", 1) + string(topic) + fields + struct.pack(">i?", 30_000, False)
        answer = self.request(CREATE_TOPICS, 4, body)
        answer.take("ii")
        answer.string()
        code = answer.number("h")
        if code in (0, TOPIC_EXISTS):
            self.wait_served(topic, partitions)
            return 0
        return code

    def wait_served(self, topic: str, partitions: int) -> None:
        """Wait until every partition has a leader that answers for it."""
        eventually("partitions with a leader", lambda: self.partitions(topic), partitions)
        for partition in range(partitions):
            self.offset(topic, partition, LATEST)

    def set_topic_config(self, topic: str, key: str, value: str) -> int:
        entry = string(key) + struct.pack(">b", SET) + string(value)
        body = struct.pack(">ib", 1, RESOURCE_TOPIC) + string(topic) + struct.pack(">i", 1) + entry + b"\0"
        answer = self.request(INCREMENTAL_ALTER_CONFIGS, 0, body)
        return answer.take("iih")[2]

    def partitions(self, topic: str) -> int:
        """How many partitions of the topic have a leader; 0 for a topic that does not exist."""
        answer = self.request(METADATA, 4, struct.pack(">i", 1) + string(topic) + b"\0")
        answer.number("i")
        for _ in range(answer.number("i")):
            answer.number("i")
            answer.string()
            answer.number("i")
            answer.string()
        answer.string()
        answer.take("ii")
        answer.number("h")
        answer.string()
        answer.number("?")
        led = 0
        for _ in range(answer.number("i")):
            code, _partition, leader = answer.take("hii")
            answer.take(f"{answer.number('i')}i")
            answer.take(f"{answer.number('i')}i")
            led += code == 0 and leader >= 0
        return led

    def offset(self, topic: str, partition: int, when: int) -> int:
        """The offset at a timestamp, or at EARLIEST or LATEST (then the high watermark); -1 if there is none."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            code, offset = self.offset_once(topic, partition, when)
            if code not in LEADERLESS or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if code:
            raise ValueError(f"ListOffsets of {topic}-{partition} answers {code}")
        return offset

    def offset_once(self, topic: str, partition: int, when: int) -> tuple[int, int]:
        """Asked once: (error code, offset)."""
        body = struct.pack(">ii", -1, 1) + string(topic) + struct.pack(">iiq", 1, partition, when)
        answer = self.request(LIST_OFFSETS, 1, body)
        answer.number("i")
        answer.string()
        _, _, code, _, offset = answer.take("iihqq")
        return code, offset

    def produce(self, topic: str, partition: int, batch: bytes, acks: int = -1) -> tuple[int, int]:
        """Write one batch: (error code, base offset)."""
        head = struct.pack(">hhii", -1, acks, 30_000, 1) + string(topic)
        answer = self.request(PRODUCE, 3, head + struct.pack(">iii", 1, partition, len(batch)) + batch, acks != 0)
        if acks == 0:
            return 0, -1
        answer.number("i")
        answer.string()
        _, _, code, offset = answer.take("iihq")
        return code, offset

    def fetch(self, topic: str, partition: int, offset: int, max_bytes: int = 1 << 20) -> tuple[int, int, bytes]:
        """Read once from an offset: (error code, high watermark, batches)."""
        limits = struct.pack(">iiiib", -1, 100, 1, max_bytes, 0)
        where = struct.pack(">i", 1) + string(topic) + struct.pack(">iiqi", 1, partition, offset, max_bytes)
        answer = self.request(FETCH, 4, limits + where)
        answer.take("ii")
        answer.string()
        _, _, code, high_watermark, _last_stable = answer.take("iihqq")
        answer.take(f"{max(answer.number('i'), 0) * 2}q")
        return code, high_watermark, answer.bytes(answer.number("i"))

    def committed(self, group: str, topic: str, partitions: int) -> list[int]:
        """What a group has committed of each partition, -1 for nothing; waits for the coordinator."""
        wanted = struct.pack(">i", partitions) + struct.pack(f">{partitions}i", *range(partitions))
        body = string(group) + struct.pack(">i", 1) + string(topic) + wanted
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            answer = self.request(OFFSET_FETCH, 2, body)
            offsets, codes = [-1] * partitions, set()
            for _ in range(answer.number("i")):
                answer.string()
                for _ in range(answer.number("i")):
                    partition, offset = answer.take("iq")
                    answer.string()
                    codes.add(answer.number("h"))
                    offsets[partition] = offset
            codes.add(answer.number("h"))
            if not codes & set(COORDINATORLESS) or time.monotonic() > deadline:
                break
            time.sleep(0.002)
        if NOT_COORDINATOR in codes:
            raise NotCoordinator(f"OffsetFetch of {group} answers {codes}")
        if codes != {0}:
            raise ValueError(f"OffsetFetch of {group} answers {codes}")
        return offsets

    def group_members(self, group: str) -> tuple[str, list[str]]:
        """The state of a group of the classic protocol, and the ids of its members; waits for the coordinator."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            answer = self.request(DESCRIBE_GROUPS, 0, struct.pack(">i", 1) + string(group))
            code = answer.take("ih")[1]
            if code not in COORDINATORLESS or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        if code == NOT_COORDINATOR:
            raise NotCoordinator(f"DescribeGroups of {group}")
        if code:
            raise ValueError(f"DescribeGroups of {group} answers {code}")
        answer.string()
        state = answer.string()
        answer.string()
        answer.string()
        members = []
        for _ in range(answer.number("i")):
            members.append(answer.string())
            answer.string()
            answer.string()
            answer.bytes(answer.number("i"))
            answer.bytes(answer.number("i"))
        return state, sorted(members)

    def consumer_group(self, group: str) -> tuple[str, int, list[str]]:
        """The state of a group of the consumer protocol, its epoch, and the ids of its members; waits for the coordinator."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            answer = self.request(CONSUMER_GROUP_DESCRIBE, 0, uvarint(2) + compact(group) + b"\0\0", tagged=True)
            answer.number("i")
            answer.uvarint()
            code = answer.number("h")
            if code not in COORDINATORLESS or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        message = answer.compact()
        if code == NOT_COORDINATOR:
            raise NotCoordinator(f"ConsumerGroupDescribe of {group}")
        if code:
            raise ValueError(f"ConsumerGroupDescribe of {group} answers {code}: {message}")
        answer.compact()
        state = answer.compact()
        epoch = answer.take("ii")[0]
        answer.compact()
        members = []
        for _ in range(answer.uvarint() - 1):
            members.append(answer.compact())
            answer.compact()
            answer.compact()
            answer.number("i")
            answer.compact()
            answer.compact()
            for _ in range(answer.uvarint() - 1):
                answer.compact()
            answer.compact()
            for _assignment in ("present", "target"):
                for _ in range(answer.uvarint() - 1):
                    answer.bytes(16)
                    answer.compact()
                    answer.take(f"{answer.uvarint() - 1}i")
                    answer.tags()
                answer.tags()
            answer.tags()
        return state, epoch, sorted(members)

    def stored(self, topic: str, partition: int) -> Iterator[Batch]:
        """Every batch of a partition from its log start to the high watermark of now."""
        at, end = self.offset(topic, partition, EARLIEST), self.offset(topic, partition, LATEST)
        while at < end:
            code, _, data = self.fetch(topic, partition, at)
            if code:
                raise ValueError(f"Fetch of {topic}-{partition} at {at} answers {code}")
            before = at
            for batch in batches(data):
                yield batch
                at = batch.next_offset
            if at == before:
                raise ValueError(f"Fetch of {topic}-{partition} at {at} gives nothing below {end}")
