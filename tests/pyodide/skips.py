"""What Pyodide cannot do, by name and reason: a plugin for pytest."""

import errno
import fnmatch

import pytest

PROCESSES = "starts processes"
FILES = {
    "tests/cli/test_dispatch.py": PROCESSES,
    "tests/laws/test_cli.py": PROCESSES,
    "tests/laws/test_objects.py": PROCESSES,
    "tests/laws/test_package.py": PROCESSES,
    "tests/test_lazy.py": PROCESSES,
    "tests/laws/test_flows.py": PROCESSES,
    "tests/cli/test_course.py": PROCESSES,
    "tests/foreign": PROCESSES,
    "tests/test_files.py": PROCESSES,
    "tests/browser": PROCESSES,
    "tests/site": PROCESSES,
    "tests/notebooks": PROCESSES,
    "tests/laws/test_puzzles.py": PROCESSES,
    "tests/laws/test_adapters_memory.py": PROCESSES,
    "tests/laws/test_adapters_commands.py": PROCESSES,
    "tests/laws/test_accounting_fuzz.py": PROCESSES,
    "tests/laws/test_adapters_fuzz.py": PROCESSES,
    "tests/laws/test_grading_fuzz.py": PROCESSES,
    "tests/laws/test_training_fuzz.py": PROCESSES,
    "tests/laws/test_linalg_accuracy.py": PROCESSES,
    "tests/grading/test_sandbox.py": PROCESSES,
    "tests/grading/test_classroom.py": PROCESSES,
    "tests/grading/test_assignments.py": PROCESSES,
    "tests/laws/test_grading_copies.py": PROCESSES,
}
TESTS = {
    "tests/claims/test_regularising.py::test_recorded_lines_*": "training multiplies rounding, which differs there",
    "tests/claims/test_reward_rank_runs.py::test_sixteen_ranks_*": "trains for minutes on one slow thread",
    "tests/exercises/test_blanks.py::test_first_tries_*": "ends loops after minutes on one slow thread",
    "tests/laws/test_puzzles_ending.py::*": "trains for minutes on one slow thread",
    "tests/hub/test_gguf.py::test_opening_reads_the_header_alone": "a file of gigabytes, with 32-bit sizes",
    "tests/laws/test_docs.py::*lora-np exercises check*": PROCESSES,  # the command reports the error
    "tests/adapters/test_peft_format.py::test_a_config_of_absurd_size_*": "a file of a terabyte, with 32-bit sizes",
    "tests/course/test_guided_tour.py::test_quick_runs_*": "times large matrices, which takes minutes on one slow thread",
}


def pytest_ignore_collect(collection_path, config):
    path = collection_path.relative_to(config.rootpath).as_posix()
    return True if path in FILES else None


def pytest_collection_modifyitems(items):
    for item in items:
        if "capfd" in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason="captures by file descriptor"))
        for pattern, reason in TESTS.items():
            if fnmatch.fnmatchcase(item.nodeid, pattern):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_header():
    return [f"left out: {path} ({reason})" for path, reason in FILES.items()]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from skipping_processes())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from skipping_processes())


def skipping_processes():
    """Skip a test in which a process would have started."""
    try:
        return (yield)
    except Exception as error:
        if starts_a_process(error):
            pytest.skip(PROCESSES)
        raise


def starts_a_process(error):
    """Tell whether an error, or one that led to it, is the refusal to start a process."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOTSUP:
            return True
        inner = getattr(error, "exc_info", None)  # a doctest keeps the error there
        error = inner[1] if inner else error.__cause__ or error.__context__
    return False
