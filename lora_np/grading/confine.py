"""Limit the resources of a process before it runs a submission.

Each limit is tested after it is set, and `confine` returns those that do not hold. Resource limits
work on every POSIX system, and prevent writing files. On Linux, Landlock (kernel 5.13) limits which
files can be read, and seccomp allows only system calls that reach nothing outside the process. If
the grader runs as root, the process becomes the user nobody, because root can exceed limits.

References
----------
Linux manual pages landlock(7), seccomp(2), setrlimit(2), prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import signal
import socket
import struct
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_np.checks import number, whole_number

NOBODY = 65534
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")  # folders of shared libraries


@dataclass(frozen=True)
class Limits:
    """The limits of one submission, which may not write any file.

    Parameters
    ----------
    seconds : float
        The seconds for each cell and each call of a function; at most a day.
    memory : int
        The bytes in addition to those of Python and the library.
    total_seconds : float
        The seconds for the whole file; at most a week.
    student_seconds : float
        The seconds for all files of one student; at most a week.

    Raises
    ------
    TypeError
        If a limit is not a number.
    ValueError
        If a limit is not above 0, or larger than allowed.

    Examples
    --------
    >>> Limits(seconds=2).memory // 2**20
    1024
    """

    seconds: float = 10.0
    memory: int = 1024 * 2**20
    total_seconds: float = 300.0
    student_seconds: float = 1200.0

    def __post_init__(self) -> None:
        number("seconds", self.seconds, maximum=86_400, open_minimum=True)
        for name in ("total_seconds", "student_seconds"):
            number(name, getattr(self, name), maximum=7 * 86_400, open_minimum=True)
        whole_number("memory", self.memory, maximum=2**50)


USUAL = Limits()


def confine(limits: Limits, *, secret: str, parent: int) -> dict[str, str]:
    """Set limits on this process permanently; return the limits that do not hold, and the reasons.

    Parameters
    ----------
    limits : Limits
        The limits to set.
    secret : str
        A file that must not be readable afterwards.
    parent : int
        The number of the process that this one must not outlive.
    """
    reasons: dict[str, str] = {}
    system: list[tuple[str, Callable[[], None]]] = [
        ("resources", lambda: limit_resources(limits)),
        ("files", landlock),
        (
            "user",
            lambda: become_nobody(may_read=sys.platform == "linux" and "files" not in reasons),
        ),
        # `die_with` must follow the change of user, which would cancel its effect
        ("parent", lambda: die_with(parent)),
        ("calls", seccomp),
    ]
    for name, put in system:
        try:
            put()
        except (OSError, ValueError, ImportError, AttributeError) as error:
            reasons[name] = str(error)
    missing = {name: reasons.get(cause, why) for name, cause, why in broken(limits, secret)}
    if "parent" in reasons:
        missing["end with the grader"] = reasons["parent"]
    return missing


def broken(limits: Limits, secret: str) -> Iterator[tuple[str, str, str]]:
    """Try to exceed each limit; yield name, step and reason for those that do not hold."""
    tests: list[tuple[str, str, Callable[[], bytes | int | None]]] = [
        (
            "memory",
            "resources",
            lambda: mmap.mmap(-1, address_space(limits.memory) + 2**20).close(),
        ),
        ("writing files", "resources", lambda: Path("written").write_bytes(b"x")),
        ("processes", "calls", start_a_process),
        ("reading other files", "files", lambda: Path(secret).read_bytes()),
        ("changing modes", "calls", lambda: Path("..").chmod(0o711)),
        ("signals to other processes", "calls", signal_the_parent),
        ("network", "calls", lambda: socket.socket().close()),
    ]
    for name, cause, attempt in tests:
        with contextlib.suppress(OSError, MemoryError, ValueError):
            attempt()
            yield name, cause, f"not enforced on {platform.system() or 'this platform'}"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "user", "user", "the submission runs as root"


def start_a_process() -> None:
    if hasattr(os, "fork"):
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)


def signal_the_parent() -> None:
    if os.name == "posix":  # on Windows, signal 0 would not only test, but send Ctrl-C
        os.kill(os.getppid(), 0)


def die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends for any reason."""
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: send this signal when the parent ends
    if os.getppid() != parent:
        raise SystemExit("the grader has ended")


def become_nobody(*, may_read: bool) -> None:
    """Give up root's rights; ``may_read`` keeps the right to read root's files, such as Python."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    if may_read:
        prctl(8, 1)  # PR_SET_KEEPCAPS: keep capabilities when the user changes
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    if may_read:
        read_search = 1 << 2  # CAP_DAC_READ_SEARCH, the only capability to keep
        rights = struct.pack("6I", read_search, read_search, 0, 0, 0, 0)
        nonnegative(linux().capset(struct.pack("Ii", 0x20080522, 0), rights))


def address_space(beyond: int) -> int:
    """Return ``beyond`` plus the bytes of address space in use now, if these are known."""
    used = sys.platform == "linux" and int(Path("/proc/self/statm").read_text().split()[0])
    return used * mmap.PAGESIZE + beyond


def limit_resources(limits: Limits) -> None:
    import resource

    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: address_space(limits.memory),
        resource.RLIMIT_FSIZE: 0,  # pipes are exempt, so the process can answer and print
        resource.RLIMIT_NOFILE: 64,
        # allow no other process or thread, so that killing the group ends everything
        resource.RLIMIT_NPROC: 0,
        # CPU time in seconds; the kernel enforces this limit even if the grader has ended
        resource.RLIMIT_CPU: 1 + int(limits.total_seconds),
    }
    lower(wanted, hard=True)


def lower(wanted: Mapping[int, int], *, hard: bool) -> None:
    """Set resource limits to the wanted values, but not above the present hard limits."""
    import resource

    for kind, most in wanted.items():
        _, ceiling = resource.getrlimit(kind)
        least = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
        # ignore errors, because macOS rejects some limits; `broken` tests later which limits hold
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (least, least if hard else ceiling))


# Landlock: the kernel lets the process read only listed files and folders, and write only to three
# devices.

# pairs of a Landlock version and the number of file-system rights that it defines
ALL_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))
READ = 0b1101  # the rights to execute a file, to read a file, and to list a folder
LIST = 0b1000  # the right to list a folder
READ_AND_WRITE = 0b110  # the rights to read and to write a file
ON_A_FILE = 0b1100000000000111  # the rights that apply to files; the others apply to folders
SCOPED = 0b11  # restricts signals and abstract sockets to this process; needs version 6


def landlock() -> None:
    version = syscall(444, None, 0, 1)
    rights = (1 << max(n for v, n in ALL_RIGHTS if v <= version)) - 1
    attributes = struct.pack("QQQ", rights, 0, SCOPED if version >= 6 else 0)
    ruleset = syscall(444, attributes, 24 if version >= 6 else 8, 0)
    for path, right in readable():
        allow(ruleset, path, right & rights)
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


# Packages that a submission may import, and their dependencies. These are the names of files and
# folders in the folders of installed packages, up to the first hyphen or dot.
PACKAGES = {
    "numpy", "scipy", "scikit_learn", "sklearn", "joblib", "threadpoolctl", "narwhals", "sympy",
    "mpmath", "pandas", "pytz", "tzdata", "matplotlib", "mpl_toolkits", "pylab", "contourpy",
    "cycler", "dateutil", "fontTools", "fonttools", "kiwisolver", "packaging", "PIL", "pillow",
    "pyparsing", "six", "tqdm", "charset_normalizer",
}  # fmt: skip


def readable() -> Iterator[tuple[Path, int]]:
    """Yield the paths that a submission may access, with the rights on each path.

    These are single entries of the standard library and of packages, and shared libraries. A whole
    folder of installed packages is never among them, as it may contain a copy of the laws.
    """
    yield from (
        (Path(device), READ_AND_WRITE) for device in ("/dev/null", "/dev/zero", "/dev/urandom")
    )
    yield Path("."), READ
    yield Path("/etc/ld.so.cache"), READ
    paths = sysconfig.get_paths()
    standard = [paths["stdlib"], paths["platstdlib"]]
    modules = {*sys.stdlib_module_names, "__pycache__"}
    for place in {*standard, *(f"{folder}/lib-dynload" for folder in standard)}:
        yield from entries(place, lambda name: name in modules or name.startswith("_sysconfigdata"))
    # include the folder that contains NumPy, because it may be outside of the usual folders
    for place in {*sys.path, paths["purelib"], paths["platlib"], str(Path(np.__file__).parents[1])}:
        if place not in standard:
            yield from entries(place, lambda name: name.partition("-")[0] in PACKAGES)
    own = Path(__file__).resolve().parents[1]
    yield from around(own, {own / "exercises" / "checks", own / "exercises" / "data"})
    multiarch = sysconfig.get_config_var("MULTIARCH") or "none"
    for place in {*SYSTEM, f"{sys.prefix}/lib", f"{sys.base_prefix}/lib"}:
        yield Path(place, multiarch), READ
        libraries = (path for path in Path(place).glob("*.so*") if path.is_file())
        yield from ((path.resolve(), READ) for path in libraries)


def entries(place: str, wanted: Callable[[str], bool]) -> Iterator[tuple[Path, int]]:
    """Yield a folder and those of its entries that are ``wanted``, with rights.

    ``wanted`` is called with the name of each entry up to the first dot.
    """
    folder = Path(place).resolve()
    if not place or not folder.is_dir():
        return
    yield folder, LIST  # importing from a folder requires listing it
    for entry in folder.iterdir():
        if wanted(entry.name.partition(".")[0]):
            yield entry.resolve(), READ


def around(path: Path, hidden: Collection[Path]) -> Iterator[tuple[Path, int]]:
    """Yield paths that give access to all of ``path`` but ``hidden``, and the rights for each.

    A right on a folder covers everything below it.
    """
    if path in hidden:
        return
    below = [place for place in hidden if place.is_relative_to(path)]
    yield path, LIST if below else READ
    for entry in path.iterdir() if below else ():
        if not entry.is_symlink():
            yield from around(entry, hidden)


# Seccomp: a filter in the kernel that rejects every system call that is not listed below. Most of
# the listed calls read and write files (Landlock decides which), manage memory, wait, or return
# information. So the process cannot start a process or thread, send signals to other processes,
# open a socket, use shared memory or queues, or change modes, owners or times.

ALLOWED = {  # the number of each call on x86_64 and on aarch64; -1 if it does not exist
    "read": (0, 63), "write": (1, 64), "open": (2, -1), "close": (3, 57), "stat": (4, -1),
    "fstat": (5, 80),
    "lstat": (6, -1), "poll": (7, -1), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "ioctl": (16, 29), "pread64": (17, 67), "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, -1), "select": (23, -1), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24), "nanosleep": (35,
    101),
    "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17),
    "readlink": (89, -1),
    "readlinkat": (267, 78), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98,
    165),
    "sysinfo": (99, 179), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132), "statfs": (137, 43),
    "fstatfs": (138, 44), "gettid": (186, 178), "time": (201, -1), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "getdents64": (217, 61), "set_tid_address": (218, 96),
    "restart_syscall": (219, 128), "fadvise64": (221, 223), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "openat": (257, 56),
    "newfstatat": (262, 79), "faccessat": (269, 48), "faccessat2": (439, 439), "pselect6": (270,
    72),
    "ppoll": (271, 73), "set_robust_list": (273, 99), "getrandom": (318, 278), "membarrier": (324,
    283),
    "statx": (332, 291), "rseq": (334, 293),
}  # fmt: skip
# maps a machine to its architecture number, its index in the values of `ALLOWED`, and its call
# numbers of fcntl, tgkill and prlimit64
MACHINES = {
    "x86_64": (0xC000003E, 0, 72, 234, 302),
    "aarch64": (0xC00000B7, 1, 25, 131, 261),
}
# The allowed operations of fcntl copy a descriptor, or get or set flags. Some of the other
# operations could send signals.
FCNTL = (0, 1, 2, 3, 4, 1030)
TO_THE_END = -1  # stands for a jump to the last line of the filter, which allows the call
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # REFUSE sets errno to EPERM


def seccomp() -> None:
    if platform.machine() not in MACHINES or sys.byteorder != "little":
        raise OSError("needs Linux on x86_64 or aarch64")
    program = filter_program(platform.machine(), os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    no_new_privileges()
    # `head` is a struct sock_fprog, which points to the program
    head = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    prctl(22, 2, ctypes.addressof(head))  # 22 is PR_SET_SECCOMP, and 2 is SECCOMP_MODE_FILTER


def filter_program(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """Build the filter: (operation, jump if true, jump if false, value) for each line."""
    architecture, column, fcntl, tgkill, prlimit = MACHINES[machine]
    numbers = [numbers[column] for numbers in ALLOWED.values() if numbers[column] >= 0]
    by_argument = {
        fcntl: (SECOND, FCNTL),
        tgkill: (FIRST, (pid,)),  # a process may signal only itself, as abort() does
        prlimit: (FIRST, (0,)),  # 0 means the calling process, which may change only its own limits
    }
    lines = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE)]
    lines += [(LOAD, 0, 0, NUMBER), *((EQUAL, TO_THE_END, 0, number) for number in numbers)]
    for call, (place, allowed) in by_argument.items():
        lines += [(EQUAL, 0, 2 + len(allowed), call), (LOAD, 0, 0, place)]
        lines += [*((EQUAL, TO_THE_END, 0, value) for value in allowed), (RETURN, 0, 0, REFUSE)]
    lines += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    last = len(lines) - 2  # last index minus 1, because a jump of length 0 goes to the next line
    return [
        (op, last - i if yes == TO_THE_END else yes, no, n)
        for i, (op, yes, no, n) in enumerate(lines)
    ]


def no_new_privileges() -> None:
    prctl(38, 1)


def prctl(option: int, *arguments: int) -> None:
    values = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    nonnegative(linux().prctl(option, *values))


def syscall(number: int, *arguments: int | bytes | None) -> int:
    # pass integers as C longs, because ctypes would pass them to `syscall` as 32-bit ints
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return nonnegative(linux().syscall(ctypes.c_long(number), *values))


def linux() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError("needs Linux")
    return ctypes.CDLL(None, use_errno=True)


def nonnegative(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
