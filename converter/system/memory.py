"""How much memory a fold may take, and how running out of it is reported.

A process that takes more than the machine has is killed without a message. So the command line sets
a limit on what may be allocated (RLIMIT_DATA of Linux: private writable memory), by default what
the machine and the process's cgroups leave free, and an allocation that fails becomes an error
message.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from converter.errors import UserError

HINT = (
    "Prove it on smaller inputs (--input-shape, fewer rows in --data) if the graph lets them vary, "
    "raise --max-memory, or use a machine with more memory."
)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
# The messages of torch, onnxruntime and C++ for a failed allocation; numpy raises MemoryError.
_SAID = re.compile(
    r"can't allocate memory|not enough memory|bad[ _]alloc|out of memory|"
    r"failed to allocate memory|cannot allocate memory|std::bad_array_new_length",
    re.IGNORECASE,
)
_ASKED = re.compile(r"(?:allocate|requested buffer of size) ([\d.]+ ?(?:[KMGT]iB|bytes)?)")
# Blocks of at least this many bytes are mapped, and unmapped when they are freed. By default glibc
# raises this threshold up to 32 MB, and then keeps freed feature maps between blocks in use.
_MAPPED_FROM = 4 * 2**20
_M_MMAP_THRESHOLD = -3


class OutOfMemory(UserError):
    """Memory ran out: the message says where, and how much was requested, if that is known."""


def parse_size(text: str) -> int:
    """Bytes of "900MB", "2GiB", "1.5g" or "1000000": units are powers of 1024.

    Raises:
        UserError: it is not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text, re.IGNORECASE)
    size = 0 if found is None else int(float(found[1]) * _UNITS[found[2].lower()])
    if size <= 0:
        raise UserError(f"{text!r} is not an amount of memory.", "Write it as 800MB or 4GB.")
    return size


def ended(error: BaseException) -> bool:
    """Whether an error, or its cause, says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, (RuntimeError, OSError)) and bool(_SAID.search(str(error)))


def shortage(error: BaseException, where: str = "") -> OutOfMemory:
    """An error about the lack of memory: where, how much was requested, what to do."""
    if not where:
        said = " ".join(str(error).split()).removesuffix(".")
        return OutOfMemory(f"there is not enough memory: {said or 'an allocation failed'}.", HINT)
    asked = _ASKED.search(str(error))
    size = f" (it asked for {_readable(asked[1])})" if asked else ""
    return OutOfMemory(f"memory ran out {where}{size}.", HINT)


def behind(error: BaseException) -> OutOfMemory | None:
    """The error to show if lack of memory is behind an error with another message, such as "the
    model does not run" where torch raised a RuntimeError. None if it is not."""
    if isinstance(error, OutOfMemory):
        return error
    cause: BaseException | None = error
    while cause is not None:
        if ended(cause):
            return shortage(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _readable(size: str) -> str:
    number = size.removesuffix("bytes").strip()
    return f"{int(number) / 2**20:,.0f} MB" if number.isdecimal() else size.strip().rstrip(".")


def keep_heap_small() -> None:
    """Return the memory of large arrays to the system as soon as they are freed. For glibc only."""
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)


def available(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: free on the machine, and within its cgroups.

    None where neither is known. `root` is where /proc and /sys are looked up.
    """
    limits = [_free(root), _cgroup(root)]
    return min((limit for limit in limits if limit is not None), default=None)


@contextmanager
def bounded(limit: int | None) -> Iterator[None]:
    """Let allocations fail where the process would take more than `limit` bytes in total.

    None means what is available. Only Linux has such a limit; elsewhere it is not set.

    Raises:
        UserError: `limit` is less than what the process holds already.
    """
    bound = available() if limit is None else limit
    if bound is None or not sys.platform.startswith("linux"):
        yield
        return
    import resource

    held, reserved = _held()
    if limit is None:
        bound += held
    elif limit <= held:
        raise UserError(
            f"--max-memory of {limit / 2**20:,.0f} MB is less than the {held / 2**20:,.0f} MB that "
            "Python and its libraries take."
        )
    # What is reserved but not in use (stacks of threads) takes no memory: the limit excludes it.
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = bound + max(0, reserved - held)
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def held() -> int:
    """Bytes of private memory that are resident; 0 where that is not known."""
    return _held()[0]


def _held() -> tuple[int, int]:
    """Bytes of private memory that are resident, and that are reserved in all."""
    text = _read(Path("/proc/self/status"))
    return _field(text, "RssAnon") or 0, _field(text, "VmData") or 0


def _free(root: Path) -> int | None:
    text = _read(root / "proc/meminfo")
    free = _field(text, "MemAvailable")
    return None if free is None else free + (_field(text, "SwapFree") or 0)


def _field(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def _cgroup(root: Path) -> int | None:
    """The smallest limit of the process's cgroups, up to the root; v2 and v1."""
    limits = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not path.startswith("/") or ".." in path:
            continue
        if not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path)
        # A container often sees its own group as the root of the mount.
        for level in (group, *group.parents):
            text = _read(top / level.relative_to("/") / name).strip()
            if text.isdecimal() and int(text) < 2**60:  # v1 writes "none" as a huge number
                limits.append(int(text))
    return min(limits, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
