"""What Pyodide cannot do, by name and reason: a plugin for pytest."""

import fnmatch

import pytest

PROCESSES = "starts processes"
FILES = {
    "tests/cli/test_dispatch.py": PROCESSES,
    "tests/laws/test_cli.py": PROCESSES,
    "tests/laws/test_objects.py": PROCESSES,
    "tests/laws/test_package.py": PROCESSES,
    "tests/laws/test_flows.py": PROCESSES,
    "tests/laws/test_grading_commands.py": PROCESSES,
    "tests/foreign": PROCESSES,
    "tests/test_files.py": PROCESSES,
    "tests/browser": PROCESSES,
    "tests/site": PROCESSES,
    "tests/notebooks": PROCESSES,
    "tests/adapters/test_kill.py": PROCESSES,
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
    "tests/laws/test_grading_nbgrader.py": PROCESSES,
    "tests/laws/test_grading_copies.py": PROCESSES,
}
TESTS = {
    "tests/laws/test_accounting_assumed.py::test_hostile_configs_*": PROCESSES,
    "tests/claims/test_*_runs.py::test_recorded_lines_follow_*": PROCESSES,
    "tests/claims/test_*_runs.py::test_a_rule_that_is_not_committed_*": PROCESSES,
    "tests/claims/test_regularising.py::test_recorded_lines_*": "training multiplies rounding, which differs there",
    "tests/claims/test_reward_rank_runs.py::test_sixteen_ranks_*": "trains for minutes on one slow thread",
    "tests/exercises/test_blanks.py::test_first_tries_*": "ends loops after minutes on one slow thread",
    "tests/test_mini_llama.py::test_without_arguments_*": PROCESSES,
    "tests/laws/test_puzzles_ending.py::*": "trains for minutes on one slow thread",
    "tests/hub/test_gguf.py::test_opening_reads_the_header_alone": "a file of gigabytes, with 32-bit sizes",
    "tests/laws/test_adapters_surgery.py::test_worker_processes_*": PROCESSES,
    "tests/grading/test_submissions.py::test_a_file_from_windows": PROCESSES,
    "tests/grading/test_submissions.py::test_what_is_no_submission*": PROCESSES,
    "tests/grading/test_submissions.py::test_what_is_not_handed_in_*": PROCESSES,
    "tests/grading/test_submissions.py::test_a_report_says_points_and_laws": PROCESSES,
    "tests/grading/test_submissions.py::test_only_some_exercises": PROCESSES,
    "tests/grading/test_submissions.py::test_an_exercise_that_is_not_there": PROCESSES,
    "tests/grading/test_submissions.py::test_the_check_cells_of_a_notebook_cost_nothing": PROCESSES,
    "tests/laws/test_language_commands.py::test_ctrl_c_*": PROCESSES,
    "tests/laws/test_language_commands.py::test_a_run_killed_*": PROCESSES,
    "tests/language/test_storing.py::test_killed_*": PROCESSES,
    "tests/laws/test_docs.py::*lora-np exercises check*": PROCESSES,
    "tests/course/test_notebooks.py::*": PROCESSES,
    "tests/exercises/test_handouts.py::test_the_teachers_copy_earns_all_points*": PROCESSES,
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
