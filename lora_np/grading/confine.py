"""What a submission may use: limits that a process puts on itself before it runs a line of it.

Nothing is taken on trust: each limit is tried once it is set, and `confine` returns what does not hold here.
Resource limits work on every POSIX system. On Linux, Landlock (kernel 5.13) confines files, and seccomp
refuses signals to other processes, new processes and the network. Where the grader runs as root, the process
becomes nobody, since limits do not hold for root.

References
----------
Linux manual pages landlock(7), seccomp(2), setrlimit(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import socket
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_np.checks import number, whole_number

NOBODY = 65534


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Parameters
    ----------
    seconds : float
        For each call of a function, and for each cell as the file is run; at most a day.
    memory : int
        Bytes beyond what Python and the library take.
    file_size : int
        Bytes of one file, and of what is printed.
    folder_size : int
        Bytes of all files in its folder.

    Raises
    ------
    TypeError, ValueError
        If one is no number, not above 0, or more than any computer has.
    """

    seconds: float = 10.0
    memory: int = 1024 * 2**20
    file_size: int = 2**20
    folder_size: int = 16 * 2**20

    def __post_init__(self) -> None:
        number("seconds", self.seconds, minimum=0, maximum=86_400, open_minimum=True)
        for name in ("memory", "file_size", "folder_size"):
            whole_number(name, getattr(self, name), maximum=2**50)


def confine(limits: Limits, *, secret: str) -> dict[str, str]:
    """Put the limits on this process, for good. Returns those that do not hold, and why.

    Parameters
    ----------
    limits : Limits
    secret : str
        A file that must not be readable afterwards.
    """
    reasons: dict[str, str] = {}
    system: list[tuple[str, Callable[[], None]]] = [
        ("resources", lambda: limit_resources(limits)),
        ("files", lambda: landlock(writable=Path("."))),
        ("user", lambda: become_nobody(may_read=sys.platform == "linux" and "files" not in reasons)),
        ("signals", seccomp),
    ]
    for name, put in system:
        try:
            put()
        except (OSError, ValueError, ImportError, AttributeError) as error:
            reasons[name] = str(error)
    return {name: reasons.get(cause, why) for name, cause, why in broken(limits, secret)}


def broken(limits: Limits, secret: str) -> Iterator[tuple[str, str, str]]:
    """Try to overstep each limit; those that let it happen, with the step that should have set them."""
    tests: list[tuple[str, str, Callable[[], Any]]] = [
        ("memory", "resources", lambda: mmap.mmap(-1, limits.memory + 2**20).close()),
        ("file size", "resources", lambda: write_too_much(limits.file_size + 1)),
        ("processes", "signals", start_a_process),
        ("reading other files", "files", lambda: Path(secret).read_bytes()),
        ("signals to other processes", "signals", signal_the_parent),
        ("network", "signals", lambda: socket.socket().close()),
    ]
    for name, cause, attempt in tests:
        with contextlib.suppress(OSError, MemoryError, ValueError):
            attempt()
            yield name, cause, f"not enforced on {platform.system() or 'this platform'}"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "user", "user", "the submission runs as root"


def write_too_much(size: int) -> None:
    path = Path("too-large")
    try:
        with path.open("wb") as file:
            file.truncate(size)
    finally:
        path.unlink(missing_ok=True)


def start_a_process() -> None:
    child = os.fork() if hasattr(os, "fork") else 1
    if child == 0:
        os._exit(0)
    if hasattr(os, "fork"):
        os.waitpid(child, 0)


def signal_the_parent() -> None:
    if os.name == "posix":  # elsewhere a signal of 0 is no question but Ctrl-C
        os.kill(os.getppid(), 0)


def become_nobody(*, may_read: bool) -> None:
    """Give up root. ``may_read`` keeps the right to read, for a Python that lies in root's own folders."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    if may_read:
        prctl(8, 1)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    if may_read:
        read_search = 1 << 2  # CAP_DAC_READ_SEARCH, and no other
        rights = struct.pack("6I", read_search, read_search, 0, 0, 0, 0)
        checked(ctypes.CDLL(None, use_errno=True).capset(struct.pack("Ii", 0x20080522, 0), rights))


def limit_resources(limits: Limits) -> None:
    import resource

    used = 0
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, used + limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),  # no process or thread beyond this one, so nothing can leave its group
        (resource.RLIMIT_CPU, 1 + int(60 * limits.seconds)),  # in case the grader itself is gone
    ]
    for kind, most in wanted:
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some: `broken` finds out which matter
            resource.setrlimit(kind, (least, least))


# Landlock: nothing can be read but Python and the library, nothing written outside one folder.

ALL_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))  # from which version on there are so many rights
READ = 0b1101  # execute, read file, read folder
ON_A_FILE = 0b1100000000000111  # the rights that a file, not a folder, can have
SCOPED = 0b11  # abstract sockets, signals


def landlock(writable: Path) -> None:
    if sys.platform != "linux":
        raise OSError("needs Linux")
    version = syscall(444, None, 0, 1)
    rights = (1 << max(n for v, n in ALL_RIGHTS if v <= version)) - 1
    attributes = struct.pack("QQQ", rights, 0, SCOPED if version >= 6 else 0)
    ruleset = syscall(444, attributes, 24 if version >= 6 else 8, 0)
    allow(ruleset, writable, rights & ~1)
    for path in readable():
        allow(ruleset, path, READ & rights)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        allow(ruleset, Path(device), 0b110)
    no_new_privileges()
    syscall(446, ruleset, 0)
    os.close(ruleset)


def allow(ruleset: int, path: Path, rights: int) -> None:
    if not path.exists():
        return
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rights = rights if path.is_dir() else rights & ON_A_FILE
    syscall(445, ruleset, 1, struct.pack("=Qi", rights, folder), 0)
    os.close(folder)


def readable() -> Iterable[Path]:
    """Where Python and its packages live. Of a checkout only the package: its solutions stay out of sight."""
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()]
    packages = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    own = Path(__file__).parents[1]
    return [*map(Path, (*system, *python, *packages)), own]


# Seccomp: a filter in the kernel that answers some system calls with "not permitted".

REFUSED = {  # by machine: the number of its architecture, and of calls that reach beyond the process
    "x86_64": (0xC000003E, [
        62, 200, 234, 129, 297,  # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
        424, 434, 438, 101, 310, 311,  # pidfd: send_signal, open, getfd; ptrace; process_vm: readv, writev
        56, 57, 58, 435, 109, 112,  # clone, fork, vfork, clone3, setpgid, setsid
        304,  # open_by_handle_at, which could go around Landlock's paths
        41, 425, 141, 144, 203, 314,  # socket, io_uring_setup, setpriority, sched_set*
    ], 72, 302),
    "aarch64": (0xC00000B7, [
        129, 130, 131, 138, 240, 424, 434, 438, 117, 270, 271,
        220, 435, 154, 157, 265, 198, 425, 140, 119, 122, 274,
    ], 25, 261),
}  # fmt: skip
F_SETOWN, F_SETOWN_EX = 8, 15  # fcntl that sends signals to others
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24  # where struct seccomp_data holds them
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # the second: errno EPERM


def seccomp() -> None:
    if sys.platform != "linux" or platform.machine() not in REFUSED or sys.byteorder != "little":
        raise OSError("needs Linux on x86_64 or aarch64")
    program = filter_program(*REFUSED[platform.machine()])
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    no_new_privileges()
    head = Program(len(program), ctypes.addressof(code))
    prctl(22, 2, ctypes.addressof(head))  # PR_SET_SECCOMP, with a filter


class Program(ctypes.Structure):
    """``struct sock_fprog``: a filter's length and address."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def filter_program(
    architecture: int, refused: list[int], fcntl: int, prlimit: int
) -> list[tuple[int, int, int, int]]:
    """Lines of (operation, jump if true, jump if false, value); jumps count from the next line."""
    lines: list[tuple[int, str, str, int]] = [
        (LOAD, "", "", ARCHITECTURE),
        (EQUAL, "", "refuse", architecture),
        (LOAD, "", "", NUMBER),
        (AT_LEAST, "refuse", "", 0x40000000),  # the x32 numbers of x86_64
        *((EQUAL, "refuse", "", number) for number in refused),
        (EQUAL, "", "prlimit", fcntl),
        (LOAD, "", "", SECOND),
        (EQUAL, "refuse", "", F_SETOWN),
        (EQUAL, "refuse", "allow", F_SETOWN_EX),
        (EQUAL, "", "allow", prlimit),
        (LOAD, "", "", FIRST),
        (EQUAL, "allow", "refuse", 0),  # its own limits only
        (RETURN, "", "", ALLOW),
        (RETURN, "", "", REFUSE),
    ]
    labels = {"prlimit": len(lines) - 5, "allow": len(lines) - 2, "refuse": len(lines) - 1}
    return [
        (operation, labels[yes] - i - 1 if yes else 0, labels[no] - i - 1 if no else 0, value)
        for i, (operation, yes, no, value) in enumerate(lines)
    ]


def no_new_privileges() -> None:
    prctl(38, 1)


def prctl(option: int, *arguments: int) -> None:
    values = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    checked(ctypes.CDLL(None, use_errno=True).prctl(option, *values))


def syscall(number: int, *arguments: Any) -> int:
    # Whole numbers as longs: a variadic function does not say how wide its arguments are.
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *values))


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
