"""The filter of system calls, followed step by step as the kernel does."""

import pytest

from lora_np.grading.confine import ALLOWED, MACHINES, Limits, filter_program


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_jumps_forward_to_where_it_should(machine):
    program = filter_program(machine, 4321)
    for i, (operation, yes, no, _) in enumerate(program):
        assert 0 <= yes < 256
        assert 0 <= no < 256
        if operation == 0x15:
            assert i + 1 + max(yes, no) < len(program)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "number", "arguments", "allowed"), [
    ("read", "read", (0, 0), True),
    ("the last of the list", "rseq", (0, 0), True),
    ("fcntl, get flags", "fcntl", (3, 3), True),
    ("fcntl, set owner", "fcntl", (3, 8), False),
    ("fcntl, set owner, extended", "fcntl", (3, 15), False),
    ("its own limits", "prlimit", (0, 0), True),
    ("a signal to itself", "tgkill", (4321, 0), True),
    ("a signal to another", "tgkill", (4322, 0), False),
    ("another's limits", "prlimit", (77, 0), False),
    ("a call that is not listed", 9999, (0, 0), False),
    ("the x32 numbers", 0x40000001, (0, 0), False),
])  # fmt: skip
def test_the_filter_run_by_hand(machine, name, number, arguments, allowed):
    architecture, column, fcntl, tgkill, prlimit = MACHINES[machine]
    numbers = {
        "fcntl": fcntl,
        "tgkill": tgkill,
        "prlimit": prlimit,
        **{name: both[column] for name, both in ALLOWED.items()},
    }
    data = {0: numbers.get(number, number), 4: architecture, 16: arguments[0], 24: arguments[1]}
    assert run(filter_program(machine, 4321), data) == allowed
    assert not run(filter_program(machine, 4321), {**data, 4: 0x40000003})


@pytest.mark.parametrize("machine", MACHINES)
def test_no_call_reaches_beyond_the_process(machine):
    """By number: kill, tkill, tgkill, clone, fork, vfork, chmod, fchmod, chown, utime, shmget,
    socket, ...
    """
    beyond = {
        "x86_64": [
            62,
            200,
            234,
            56,
            57,
            58,
            435,
            90,
            91,
            268,
            92,
            93,
            94,
            132,
            235,
            280,
            188,
            29,
            41,
            77,
            86,
            319,
        ],
        "aarch64": [129, 130, 131, 220, 435, 52, 53, 54, 55, 88, 5, 194, 198, 46, 37, 279],
    }[machine]
    architecture = MACHINES[machine][0]
    for number in beyond:
        assert not run(filter_program(machine, 4321), {0: number, 4: architecture, 16: 0, 24: 0}), (
            number
        )


def run(program, data):
    """What the kernel does with the filter: True for allowed."""
    place, loaded = 0, 0
    while True:
        operation, yes, no, value = program[place]
        place += 1
        if operation == 0x06:
            return value == 0x7FFF0000
        if operation == 0x20:
            loaded = data[value]
        else:
            holds = loaded == value if operation == 0x15 else loaded >= value
            place += yes if holds else no


@pytest.mark.parametrize("name", ["seconds", "total_seconds", "student_seconds", "memory"])
@pytest.mark.parametrize("limit", [-1, 2**60])
def test_a_limit_out_of_range_is_named(name, limit):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Limits(**{name: limit})
