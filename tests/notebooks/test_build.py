"""The pipeline: what it makes, what it refuses, and that no change goes unseen."""

import pytest

pytest.importorskip("jupytext", reason="comes with the extra `lessons`")
pytest.importorskip("nbclient", reason="comes with the extra `lessons`")

from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError
from PIL import Image

from lora_np.version import __version__
from notebooks import about, build

PUBLISHED = Path(__file__).parents[1] / "published.toml"

LESSON = """\
# %% [markdown]
# # Add
#
# **What is 2 + 3?**

# %%
print("sum:")
print(2 + 3)

# %% alt="A line from the lower left to the upper right" tags=["cover"]
import matplotlib.pyplot as plt

lines = plt.figure().add_subplot().plot([0, 1])
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one small lesson, in a folder of its own."""
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(build, "SOURCES", tmp_path / "src")
    monkeypatch.setattr(build, "NUMBERED", {"add": "01-add"})
    monkeypatch.setattr(build, "ending", lambda source: "## The next lesson\n\nMultiply.")
    (tmp_path / "src").mkdir()
    write(tmp_path, LESSON)
    return tmp_path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook of that lesson, made once."""
    folder = tmp_path_factory.mktemp("executed")
    (folder / "src").mkdir()
    write(folder, LESSON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "NOTEBOOKS", folder)
        patch.setattr(build, "SOURCES", folder / "src")
        patch.setattr(build, "NUMBERED", {"add": "01-add"})
        patch.setattr(build, "ending", lambda source: "## The next lesson\n\nMultiply.")
        assert build.main([]) == 0
    return (folder / "01-add.ipynb").read_bytes()


@pytest.fixture
def built(course, executed):
    """The course with its notebook."""
    (course / "01-add.ipynb").write_bytes(executed)
    return course


def write(course, text):
    (course / "src" / "add.py").write_text(text, encoding="utf-8")


def code(*lines):
    return "# %%\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize("source", build.lessons(), ids=lambda source: source.stem)
def test_committed_notebooks_have_the_cells_of_their_sources(source):
    fresh, committed = build.read(source), nbformat.read(build.notebook_of(source), as_version=4)
    assert [(c.id, c.cell_type, c.source) for c in fresh.cells] == [
        (c.id, c.cell_type, c.source) for c in committed.cells
    ]


def test_every_notebook_has_a_source():
    made = {build.notebook_of(source) for source in build.lessons()}
    assert set(build.NOTEBOOKS.glob("*.ipynb")) == made


def test_building_again_changes_no_byte(built, executed):
    assert build.main([]) == 0
    assert (built / "01-add.ipynb").read_bytes() == executed
    with Image.open(built / "covers" / "01-add.png") as cover:
        assert cover.width == 640
    assert build.main(["--check"]) == 0


def test_every_lesson_has_one_cover():
    assert {path.stem for path in (build.NOTEBOOKS / "covers").iterdir()} == {
        build.number_of(source) for source in build.lessons()
    }


def test_notebook_holds_outputs_alt_text_and_nothing_of_this_machine(built):
    notebook = nbformat.read(built / "01-add.ipynb", as_version=4)
    nbformat.validate(notebook)
    _, printed, drawn, _ = notebook.cells
    assert notebook.metadata.seconds in (10, 20)
    assert printed.outputs == [{"output_type": "stream", "name": "stdout", "text": "sum:\n5\n"}]
    (figure,) = drawn.outputs
    assert figure.metadata["image/png"]["alt"] == "A line from the lower left to the upper right"
    assert str(built.parent) not in nbformat.writes(notebook)
    assert "draw_cover" not in nbformat.writes(notebook)
    assert "version" not in notebook.metadata.language_info


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("What is 2 + 3?", "What is 2 + 2?"),  # prose
        ("2 + 3)", "2 + 4)"),  # a result
        ("print(2 + 3)", "print(1 + 4)"),  # code with the same result
        ("A line from", "A curve from"),  # alt text
        ("# %% alt", "# %%\nprint('new')\n\n# %% alt"),  # a cell more
    ],
)
def test_check_sees_each_change_of_a_source(built, executed, capsys, old, new):
    assert old in LESSON
    write(built, LESSON.replace(old, new))
    assert build.main(["--check"]) == 1
    assert "differs" in capsys.readouterr().out
    assert (built / "01-add.ipynb").read_bytes() == executed


def test_prose_alone_is_renewed_without_running_the_code(built, executed, monkeypatch):
    write(built, LESSON.replace("What is 2 + 3?", "How much is 2 + 3?"))
    with monkeypatch.context() as patch:
        patch.setattr(build, "execute", lambda notebook: pytest.fail("executed"))
        assert build.main(["--prose"]) == 0
    assert "How much" in (built / "01-add.ipynb").read_text(encoding="utf-8")
    assert build.main(["--check"]) == 0
    write(built, LESSON.replace("print(2 + 3)", "print(2 + 4)"))
    assert build.main(["--prose"]) == 0
    assert '"sum:\\n",\n      "6\\n"' in (built / "01-add.ipynb").read_text(encoding="utf-8")


def test_a_lesson_ends_with_its_exercises_and_the_next():
    first, *_, last = build.lessons()
    assert "`lora-np exercises start my-exercises --lesson 0`" in build.ending(first)
    assert "<!-- page: 00-follow-the-post -->" in build.ending(first)
    assert "[See rank](01-see-rank.ipynb). What is the number" in build.ending(first)
    assert "-build-a-lora -->" in build.ending(last)


def test_a_page_of_exercises_is_linked_where_there_is_one(monkeypatch):
    """On the site by a path, in a notebook by the address of the site, and not at all until there
    is one.
    """
    first = build.lessons()[0]
    here, there = (
        "](../practice/00-follow-the-post.md)",
        "](https://lora-np.example/latest/practice/00-follow-the-post.html)",
    )
    plain = build.ending(first)
    assert "on their page" not in plain
    monkeypatch.setenv("PUBLICATION", str(PUBLISHED))
    public = build.ending(first)
    assert there in public
    for text in (plain, public):
        local = about.linked(text, "../practice/{}.md")
        assert here in local
        assert there not in local
        assert about.linked(local, "../practice/{}.md") == local
    assert about.linked(plain, "https://lora-np.example/latest/practice/{}.html") == public


def test_once_published_a_notebook_installs_the_package_where_it_is_missing(
    built, executed, monkeypatch
):
    """By a cell that is put in without executing the others, and is not executed itself."""
    monkeypatch.setenv("PUBLICATION", str(PUBLISHED))
    assert build.main(["--check"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(build, "execute", lambda notebook: pytest.fail("executed"))
        assert build.main(["--prose"]) == 0
    before, now = (
        nbformat.reads(text, as_version=4)
        for text in (executed, (built / "01-add.ipynb").read_bytes())
    )
    title, install, *others = now.cells
    assert [title, *others] == before.cells
    assert install.source.endswith(
        f'find_spec("lora_np") is None:\n    %pip install -q lora-np=={__version__}'
    )
    assert (install.outputs, install.execution_count) == ([], None)
    assert {"install", "remove-cell"} <= set(install.metadata.tags)
    assert about.minutes(now) == about.minutes(before)
    nbformat.validate(now)
    assert build.main(["--check"]) == 0  # which executes


def test_the_cell_that_installs_does_nothing_where_the_package_is():
    """Nor asks a network: what follows the ``if`` is not reached."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    asked = []
    shell.register_magic_function(asked.append, magic_name="pip")
    for name, count in (("lora_np", 0), ("lora_np_that_is_missing", 1)):
        text = build.INSTALL.format(package="lora-np", version="1.2.3").replace(
            '"lora_np"', f'"{name}"'
        )
        shell.run_cell(text).raise_error()
        assert len(asked) == count
    assert asked == ["install -q lora-np==1.2.3"]


def edit(course, change):
    notebook = nbformat.read(course / "01-add.ipynb", as_version=4)
    change(notebook.cells)
    nbformat.write(notebook, course / "01-add.ipynb")


def test_check_sees_a_result_that_changed_though_the_source_did_not(built, capsys):
    edit(built, lambda cells: cells[1].outputs[0].update(text="sum:\n6\n"))
    assert build.main(["--check"]) == 1
    assert "cell 2 differs" in capsys.readouterr().out


def test_check_sees_a_figure_that_is_gone(built, capsys):
    edit(built, lambda cells: cells[2].update(outputs=[]))
    assert build.main(["--check", "--half", "1"]) == 0  # the lesson is in the other half
    assert build.main(["--check", "--half", "0"]) == 1
    assert "cell 3 differs" in capsys.readouterr().out


def test_check_passes_over_how_a_renderer_draws(built):
    edit(built, lambda cells: cells[2].outputs[0].data.update({"image/png": "AAAA"}))
    assert build.main(["--check"]) == 0


def test_check_sees_missing_and_orphaned_notebooks(built, capsys):
    (built / "01-add.ipynb").rename(built / "02-old.ipynb")
    assert build.main(["--check"]) == 1
    printed = capsys.readouterr().out
    assert "add: there is no notebook" in printed
    assert "02-old: there is no source" in printed


def test_warnings_are_errors(course):
    write(course, code("import warnings", "warnings.warn('be careful', DeprecationWarning)"))
    with pytest.raises(CellExecutionError, match="be careful"):
        build.main([])
    assert not (course / "01-add.ipynb").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["import sys", "print('psst', file=sys.stderr)"], "nothing to stderr"),
        (["print(object())"], "must be the same everywhere"),
        (
            ["from pathlib import Path", "print(Path('/home/somebody/file'))"],
            "must be the same everywhere",
        ),
        (["import matplotlib.pyplot as plt", "lines = plt.plot([0, 1])"], "alt="),
    ],
)
def test_refuses_what_would_differ_elsewhere_or_cannot_be_read(course, lines, message):
    write(course, code(*lines))
    with pytest.raises(ValueError, match=message):
        build.main([])


def test_refuses_a_notebook_that_is_too_large(course, capsys):
    write(course, code("print(6_000 * (99 * 'x' + '\\n'))"))
    assert build.main([]) == 1
    assert "more than 500,000" in capsys.readouterr().out
    assert not (course / "01-add.ipynb").exists()


def test_photographs_become_jpeg(course):
    lines = [
        "import numpy as np",
        "import lora_np as lnp",
        "noise = np.random.default_rng(0).random((800, 800))",
    ]
    text = (
        code(*lines) + '\n# %% alt="Noise"\nfigure = lnp.plots.gallery({"noise": noise}, width=4)\n'
    )
    write(course, text)
    build.main([])
    notebook = nbformat.read(course / "01-add.ipynb", as_version=4)
    (figure,) = notebook.cells[1].outputs
    assert figure.metadata["image/jpeg"]["alt"] == "Noise"
    assert "image/png" not in figure.data


def test_names_choose_lessons(course):
    assert [source.stem for source in build.lessons(["add"])] == ["add"]
    with pytest.raises(SystemExit, match="no lesson 'subtract'; there are add"):
        build.main(["subtract"])


def test_equal_cells_get_different_ids_and_the_same_in_every_run(course):
    write(course, code("x = 1") * 2)
    first, second = build.read(build.lessons()[0]), build.read(build.lessons()[0])
    assert [cell.id for cell in first.cells] == [cell.id for cell in second.cells]
    assert len({cell.id for cell in first.cells}) == len(first.cells) == 3  # with what it ends with
