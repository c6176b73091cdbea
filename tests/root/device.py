"""Filesystems on loop devices: made, cut from power, filled, broken. Needs root and a mount namespace of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

MIB = 1 << 20
BLOCK = 4096
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SETTLE_SECONDS = 10.0
STILL_SECONDS = 0.05


def system(*command: str, allowed: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in allowed:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def enter_namespace(variable: str = "OTTLA_TESTS_NAMESPACE") -> None:
    """Run the calling script again in a mount namespace of its own: mounts vanish with it, whatever happens."""
    if os.geteuid() != 0:
        raise SystemExit("this needs root: loop devices, mounts, namespaces")
    if variable not in os.environ:
        os.environ[variable] = "1"
        python = [sys.executable, *sys.argv]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *python])


class Filesystem:
    """An ext4 in an image file, mounted through a loop device.

    `direct` writes to the image past the page cache. Without it the device says that a sync succeeded and loses what was synced
    when the filesystem under the image has no space left: then nothing that runs on it can keep its promises.
    """

    def __init__(self, image: Path, mount: Path, mebibytes: int, direct: bool = False) -> None:
        self.direct = direct
        self.image, self.mount_point, self.device = image, mount, ""
        mount.mkdir(parents=True, exist_ok=True)
        with open(image, "wb") as file:
            file.truncate(mebibytes * MIB)
        eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        system("mkfs.ext4", "-q", "-F", "-m", "0", "-E", eager, str(image))

    def reserve_metadata(self) -> Filesystem:
        """Give the image room for every block that holds metadata now, the journal too: when the space under the image runs
        out, writes of data fail, and none of those that describe data which was synced before."""
        free: set[int] = set()
        for line in system("dumpe2fs", str(self.image)).splitlines():
            before, _, ranges = line.strip().partition("Free blocks: ")
            for part in ranges.split(", ") if ranges and not before else []:
                first, _, last = part.partition("-")
                free.update(range(int(first), int(last or first) + 1))
        with open(self.image, "r+b") as file:
            for block in set(range(self.image.stat().st_size // BLOCK)) - free:
                os.posix_fallocate(file.fileno(), block * BLOCK, BLOCK)
        return self

    def mount(self) -> Filesystem:
        direct = "on" if self.direct else "off"
        self.device = system("losetup", f"--direct-io={direct}", "--find", "--show", str(self.image))
        system("mount", "-o", "noatime", self.device, str(self.mount_point))
        return self

    def unmount(self) -> None:
        if not self.device:
            return
        for _ in range(50):
            if subprocess.run(["umount", str(self.mount_point)], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            system("umount", "--lazy", str(self.mount_point))
        system("losetup", "--detach", self.device)
        self.device = ""

    def sync(self) -> None:
        system("sync", "--file-system", str(self.mount_point))

    def counters(self) -> tuple[str, ...]:
        """Writes, discards and flushes that the device has seen."""
        fields = Path(f"/sys/block/{Path(self.device).name}/stat").read_text().split()
        return tuple(fields[4:8] + fields[11:])

    def in_flight(self) -> int:
        return sum(map(int, Path(f"/sys/block/{Path(self.device).name}/inflight").read_text().split()))

    def settle(self) -> bool:
        """Wait until the device has nothing in flight and its counters stand still."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            before = self.counters()
            time.sleep(STILL_SECONDS)
            if self.in_flight() == 0 and self.counters() == before:
                return True
        return False

    def copy_if_still(self, to: Path) -> bool:
        """Copy the image; False if the device was written to meanwhile, so that the copy shows no single moment."""
        if not self.settle():
            return False
        before = self.counters()
        system("cp", "--sparse=always", str(self.image), str(to))
        return self.counters() == before and self.in_flight() == 0

    def replace_image(self, by: Path) -> None:
        """Forget what the device had and go on with another image, in the same place."""
        self.unmount()
        by.replace(self.image)
        self.mount()

    def check(self) -> None:
        """fsck, repairing what a failed device leaves behind."""
        system("e2fsck", "-f", "-y", str(self.image), allowed=(0, 1, 2))


class BootId:
    """A boot id that can be changed, bound over the kernel's in this namespace."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.change()
        system("mount", "--bind", str(file), BOOT_ID)

    def change(self) -> None:
        with open(self.file, "w") as file:
            file.write(f"{uuid.uuid4()}\n")

    def remove(self) -> None:
        system("umount", BOOT_ID)


def fill(directory: Path, name: str = "filler") -> Path:
    """Take all the space that is left, with a file."""
    filler = directory / name
    step = 4 * MIB
    with open(filler, "wb") as file:
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), step)
            except OSError:
                step //= 2
        os.fsync(file.fileno())
    return filler
