"""Twenty measured peaks of memory, published with all settings: the list came before the estimates."""

import importlib.util
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "_ext" / "plan_page.py"
TRAINABLE = {"phi-1.5": 1_572_864, "stablelm-alpha-3b": 2_097_152, "llama-2-7b": 4_194_304,
             "llama-2-13b": 6_553_600}  # fmt: skip


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("plan_page", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_eighteen_of_twenty_estimates_are_within_fifteen_percent(page):
    figures = page.LISTED["figures"]
    assert len({(figure["model"], figure["published"]) for figure in figures}) == 20
    assert {figure["source"] for figure in figures} == {*page.LISTED["sources"]}
    errors = [page.estimated(figure)[0] / figure["published"] - 1 for figure in figures]
    assert sum(abs(error) <= 0.15 for error in errors) >= 18
    assert max(map(abs, errors)) < 0.35


def test_trainable_parameters_are_those_published(page):
    figures = [figure for figure in page.LISTED["figures"] if figure["source"] == "litgpt"]
    assert {figure["model"]: page.estimated(figure)[1] for figure in figures} == TRAINABLE
