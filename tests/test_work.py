"""The threads of linear algebra."""

from contextlib import contextmanager

import pytest

from lora_np import work

VARIABLES = [f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")]


@pytest.fixture
def limited(monkeypatch):
    """How often linear algebra was limited, with no variable set."""
    entered = []

    @contextmanager
    def one_thread():
        entered.append(1)
        yield

    monkeypatch.setattr(work, "one_thread", one_thread)
    for variable in [*VARIABLES, "NUMEXPR_NUM_THREADS"]:
        monkeypatch.delenv(variable, raising=False)
    return entered


def test_one_thread_for_each_call_of_a_function(limited):
    @work.usual_threads()
    def run():
        return len(limited)

    assert [run(), run()] == [1, 2]


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_users_number_stays(variable, limited, monkeypatch):
    monkeypatch.setenv(variable, "4")
    with work.usual_threads():
        assert limited == []


def test_the_limit_holds_in_the_block_alone():
    def threads():
        return [library["num_threads"] for library in work._libraries().info()]

    before = threads()
    with work.one_thread():
        assert all(number == 1 for number in threads())
    assert threads() == before
