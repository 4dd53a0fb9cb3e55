"""Submissions made from solutions and mistakes."""

import pytest

from lora_np.exercises import HEADER, lessons, solution


@pytest.fixture(scope="session")
def solved():
    """A script with the solutions of a lesson; ``without`` names exercises that are left as
    stubs.
    """

    def script(number, without=()):
        (lesson,) = lessons([number])
        parts = [
            one.stub if one.name in without else solution(one.name).code for one in lesson.exercises
        ]
        return "\n\n# %%\n".join([HEADER, *parts])

    return script
