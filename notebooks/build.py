"""Lessons: sources in percent format become executed notebooks, the same bytes each time.

    python -m notebooks.build [NAME ...]          execute lessons and write their notebooks
    python -m notebooks.build --prose [NAME ...]  keep the outputs where only the prose has changed
    python -m notebooks.build --check [NAME ...]  execute, and fail where a committed one differs

Each cell runs with warnings as errors. A cell that draws carries its alt text in the source, as in
``# %% alt="The error falls with the rank"``, and the build refuses a figure without one. Headings
and figures begin slides, for ``jupyter nbconvert --to slides``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import math
import os
import re
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

from hatch_build import package, publication
from lora_np.exercises import Exercise, Lesson, lessons as numbered
from lora_np.version import __version__
from notebooks import about

NOTEBOOKS = Path(__file__).parent
SOURCES = NOTEBOOKS / "src"
LIMIT = 500_000  # bytes of a notebook
PHOTOGRAPH = 100_000  # bytes above which a figure must be one
LANCZOS = Image.Resampling.LANCZOS
WIDTH = 640  # pixels of a cover, shown at half of that
SECONDS = 10  # to whose multiples run times are rounded up, so that they seldom change
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
# Without ipywidgets a slider is a static figure, which is what a committed notebook can show
# everywhere.
BEFORE = """
import sys, warnings
sys.modules["ipywidgets"] = None
%matplotlib inline
%config InlineBackend.figure_formats = ["retina"]
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")  # its own housekeeping
"""
# Runs before the cell of the cover: its figure is drawn a second time, smaller, so that words are
# large in it. The notebook's own figure is the one that follows.
COVER = """
def draw_cover(hooks=get_ipython().events.callbacks["post_execute"]):
    from matplotlib import pyplot

    hooks.remove(draw_cover)
    if pyplot.get_fignums():
        figure = pyplot.gcf()
    elif hasattr(_, "savefig"):  # the value of the cell
        figure = _
    else:  # drawn while it ran
        figure = axes.figure
    size = figure.get_size_inches()
    figure.set_size_inches(size * max(4 / size[0], 0.6))
    figure.savefig({path!r}, dpi=200, bbox_inches="tight")
    figure.set_size_inches(size)

def before_the_next(info, events=get_ipython().events):  # a kernel also executes without a cell
    events.unregister("pre_run_cell", before_the_next)
    events.callbacks["post_execute"].insert(0, draw_cover)  # before the one that closes figures

get_ipython().events.register("pre_run_cell", before_the_next)
"""
# Its tags keep it off the pages of the site, and out of the cells that are executed and counted.
INSTALL = """\
# Where the package is missing, as in Colab: install it. Elsewhere this does nothing.
import importlib.util

if importlib.util.find_spec("lora_np") is None:
    %pip install -q {package}=={version}"""
# sources carry no number, notebooks do
NUMBERED = {lesson.slug: lesson.stem for lesson in numbered()}
NOISE = re.compile(r"\bat 0x[0-9a-f]+|(?:/tmp|/home|/root|/Users|[A-Z]:\\)\S*|\x1b\[")


def lessons(names: list[str] | None = None) -> list[Path]:
    """The sources, in the order of the course; all of them, or those whose file name contains a
    name.
    """
    sources = sorted(SOURCES.glob("*.py"), key=number_of)
    for name in names or []:
        if not any(name in source.stem for source in sources):
            raise SystemExit(f"no lesson {name!r}; there are {', '.join(s.stem for s in sources)}")
    return [s for s in sources if not names or any(name in s.stem for name in names)]


def number_of(source: Path) -> str:
    """Its place in the course, as in ``01-see-rank``. The order is in `lora_np.exercises`."""
    if source.stem not in NUMBERED:
        raise SystemExit(f"{source.name} must be one of the lessons {', '.join(NUMBERED)}")
    return NUMBERED[source.stem]


def notebook_of(source: Path) -> Path:
    return NOTEBOOKS / f"{number_of(source)}.ipynb"


def orphans() -> list[Path]:
    """Notebooks that no source makes."""
    return sorted(set(NOTEBOOKS.glob("*.ipynb")) - {notebook_of(source) for source in lessons()})


def read(source: Path) -> Any:
    """The notebook that a source describes, without outputs. A cell's id is made from its text.

    A heading begins a cell, even where the source goes on in the same one: so it can begin a slide.
    """
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.cells.append(nbformat.v4.new_markdown_cell(ending(source)))
    notebook.cells = [part for cell in notebook.cells for part in parts(cell)]
    if package():
        install = INSTALL.format(package=package(), version=__version__)
        tags = {"tags": ["install", "remove-cell"]}
        notebook.cells.insert(1, nbformat.v4.new_code_cell(install, metadata=tags))
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        text = f"{cell.cell_type}\n{cell.source}"
        cell.id = hashlib.sha256(f"{text}\n{seen[text]}".encode()).hexdigest()[:12]
        seen[text] += 1
        if kind := slide(cell):
            cell.metadata["slideshow"] = {"slide_type": kind}
    return notebook


def ending(source: Path) -> str:
    """What every lesson ends with: its exercises, if it has any, and the next lesson with its
    question.
    """
    lesson = next(one for one in numbered() if one.slug == source.stem)
    core = [exercise for exercise in lesson.exercises if not exercise.more]
    more = [exercise for exercise in lesson.exercises if exercise.more]
    beyond = f"*More*, {listed(more)}. " if more else ""
    if not lesson.exercises:
        return f"## The next lesson\n\n{following(lesson)}\n"
    text = f"""\
## Exercises, and the next lesson

**Exercises** for this lesson, {listed(core)}. {beyond}Write and check them with
{started(lesson)}.

{following(lesson)}
"""
    _, site = publication()
    return about.linked(text, f"{site}latest/practice/{{}}.html") if site else text


def listed(some: Sequence[Exercise]) -> str:
    """Their minutes and titles."""
    names = ", ".join(f"*{exercise.title}*" for exercise in some)
    return f"{sum(exercise.minutes for exercise in some)} minutes in all: {names}"


def following(lesson: Lesson) -> str:
    """What to read next: the path goes on, its end lists the groups, and these go on as well."""
    course = numbered()
    after = course[lesson.number + 1]
    if lesson.group == after.group == "path":
        return f"**Next on the path**: {announced(after)}"
    if lesson.group != "path":
        place = f" in *{after.group}*" * (after.group != "project")
        return f"**Next{place}**: {announced(after)}"
    firsts = {one.group: one for one in reversed(course[after.number :])}
    deeper = ", ".join(
        f"*{group}* with [{firsts[group].title}]({firsts[group].stem}.ipynb)"
        for group in dict.fromkeys(one.group for one in course[after.number : -1])
    )
    return f"""\
**The path ends here.** You can explain, count, train and open a LoRA. Go deeper where you like:
{deeper}. At the very end stands {announced(course[-1])}"""


def started(lesson: Lesson) -> str:
    """The command that writes a lesson's exercises; a comment names their page, to which the site
    links.
    """
    return (
        f"`lora-np exercises start my-exercises --lesson {lesson.number}`<!-- page:"
        f" {lesson.stem} -->"
    )


def announced(lesson: Lesson) -> str:
    """A lesson by its link and its question. The project has exercises only."""
    source = SOURCES / f"{lesson.slug}.py"
    if not source.exists():
        return f"the project, *{lesson.title}*, with\n{started(lesson)}."
    opening = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    return f"[{lesson.title}]({lesson.stem}.ipynb). {about.question(opening)}"


def parts(cell: Any) -> list[Any]:
    """A cell of prose, cut before its headings."""
    if cell.cell_type != "markdown":
        return [cell]
    texts = re.split(r"\n+(?=## )", cell.source)
    return [nbformat.v4.new_markdown_cell(text, metadata=dict(cell.metadata)) for text in texts]


def slide(cell: Any) -> str:
    """What a cell begins: a slide at a heading, one below it at a figure, or nothing; imports are
    skipped.
    """
    if cell.cell_type == "markdown":
        return "slide" if cell.source.startswith("#") else ""
    if about.installs(cell):
        return "skip"
    if all(line.startswith(("import ", "from ")) for line in cell.source.splitlines() if line):
        return "skip"
    return "subslide" if "alt" in cell.metadata else ""


def execute(notebook: Any) -> tuple[Any, bytes]:
    """Run all cells in a fresh kernel, in an empty folder: with tidy outputs, and the cover."""
    lesson, began = notebook.cells, spent()
    notebook.cells = [nbformat.v4.new_code_cell(BEFORE)]
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "cover.png"  # by its whole path: lessons change directories
        for cell in lesson:
            if "cover" in cell.metadata.get("tags", []):
                source = COVER.format(path=str(drawn))
                notebook.cells.append(nbformat.v4.new_code_cell(source))
            if not about.installs(cell):
                notebook.cells.append(cell)
        NotebookClient(
            notebook,
            timeout=120,
            resources={"metadata": {"path": folder}},
            coalesce_streams=True,  # or chance decides how prints are grouped
            extra_arguments=["--log-level=ERROR"],
            # the same sums on any number of cores
        ).execute(env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        cover = drawn.read_bytes() if drawn.exists() else b""
    notebook.cells = lesson
    seconds = math.ceil((spent() - began) / SECONDS) * SECONDS
    notebook.metadata = nbformat.from_dict(METADATA | {"seconds": seconds})
    for count, cell in enumerate(about.cells(notebook, "code"), start=1):
        tidy(cell, count)
    return notebook, cover


def retold(source: Path) -> tuple[Any, bytes]:
    """The notebook with today's prose and the outputs that it had; executed if its code has
    changed. And the cover, if it was.
    """
    fresh, path = read(source), notebook_of(source)
    old = nbformat.read(path, as_version=4) if path.exists() else fresh
    code, ran = (about.cells(one, "code") for one in (fresh, old))
    now, then = ([(cell.id, cell.metadata) for cell in cells] for cells in (code, ran))
    if "seconds" not in old.metadata or now != then:
        return execute(fresh)
    for cell, done in zip(code, ran, strict=True):
        cell.update(done)
    fresh.metadata = old.metadata
    return fresh, b""


def spent() -> float:
    """Seconds of a processor that finished kernels have taken: other work on the machine does not
    count.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tidy(cell: Any, count: int) -> None:
    """Keep what the lesson says: no times, counters that start at one, small figures with their alt
    text.
    """
    cell.execution_count = count
    cell.metadata.pop("execution", None)
    for output in cell.outputs:
        if "execution_count" in output:
            output.execution_count = count
        if output.output_type == "stream" and output.name == "stderr":
            raise ValueError(
                f"a lesson must write nothing to stderr, got {output.text!r} from\n{cell.source}"
            )
        for text in texts(output):
            if noise := NOISE.search(text):
                raise ValueError(
                    f"output must be the same everywhere, got {noise[0]!r} in {text[:2_000]!r} from"
                    f"\n{cell.source}"
                )
        if "image/png" in output.get("data", {}):
            if not cell.metadata.get("alt"):
                raise ValueError(
                    f'a cell that draws must begin "# %% alt=...", this does not:\n{cell.source}'
                )
            shrink(output)
            (shown,) = (kind for kind in output.data if kind.startswith("image/"))
            output.metadata[shown]["alt"] = cell.metadata.alt


def varies(cell: Any) -> bool:
    return "varies" in cell.metadata.get("tags", [])


def texts(output: Any) -> list[str]:
    """What an output says in words."""
    if output.output_type == "stream":
        return [output.text]
    return [
        text for kind, text in sorted(output.get("data", {}).items()) if kind.startswith("text/")
    ]


def shrink(output: Any) -> None:
    """Drawings in 256 colours, a third of their bytes; photographs, which that does not help, as
    JPEG.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(output.data.pop("image/png")))).convert("RGB")
    size = output.metadata.pop("image/png")  # as shown: the picture has twice as many pixels
    drawing = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    kind, encoded = "image/png", encode(drawing, "png", optimize=True)
    if len(encoded) > PHOTOGRAPH:
        smaller = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), LANCZOS)
        kind, encoded = "image/jpeg", encode(smaller, "jpeg", quality=85, optimize=True)
    output.data[kind] = base64.b64encode(encoded).decode("ascii")
    output.metadata[kind] = size


def write_cover(notebook: Any, stem: str, drawn: bytes) -> None:
    """As the site shows it: a drawing as PNG, a photograph as JPEG, as in the notebook."""
    kind = about.cover(notebook).kind.removeprefix("image/")
    picture = Image.open(io.BytesIO(drawn)).convert("RGB")
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), LANCZOS)
    if kind == "png":
        small = encode(picture.quantize(64, dither=Image.Dither.NONE), kind, optimize=True)
    else:
        small = encode(picture, kind, quality=80)
    covers = NOTEBOOKS / "covers"
    covers.mkdir(exist_ok=True)
    (covers / f"{stem}.{kind}").write_bytes(small)


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def content(notebook: Any) -> list[tuple[Any, ...]]:
    """What must not differ. Of figures only that they are there: their bytes vary with font and
    renderer.

    Nor does what a cell with the tag "varies" prints: text of a model that was just trained, where
    another processor's rounding may come out as another word. What is said of it has to be
    asserted.
    """
    return [
        (
            cell.id, cell.cell_type, cell.source, dict(cell.metadata),
            [
                (o.output_type, sorted(o.get("data", {})), *([] if varies(cell) else texts(o)))
                for o in cell.get("outputs", [])
            ],
        )
        for cell in notebook.cells
    ]  # fmt: skip


def difference(fresh: Any, committed: Any) -> str:
    """The first cell that differs, or nothing."""
    ours, theirs = content(fresh), content(committed)
    for number, (new, old) in enumerate(zip(ours, theirs, strict=False), start=1):
        if new != old:
            return f"cell {number} differs:\n{new[2]}\n{new[4]}\ncommitted:\n{old[2]}\n{old[4]}"
    if len(ours) != len(theirs):
        return f"the source has {len(ours)} cells, the notebook {len(theirs)}"
    if fresh.metadata | {"seconds": 0} != committed.metadata | {"seconds": 0}:
        return "the metadata differ"
    return ""


def stale(source: Path, fresh: Any) -> str:
    """Why the committed notebook is not what its source gives, or nothing."""
    path = notebook_of(source)
    if not path.exists():
        return "there is no notebook"
    return difference(fresh, nbformat.read(path, as_version=4))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m notebooks.build", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="part of a file name; by default all lessons"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a notebook differs"
    )
    parser.add_argument("--prose", action="store_true", help="execute only where code has changed")
    parser.add_argument(
        "--half", type=int, choices=(0, 1), help="every other lesson: each half keeps one core busy"
    )
    options = parser.parse_args(arguments)
    failures = 0
    for path in orphans() if options.check else []:
        print(f"{path.stem}: there is no source")
        failures += 1
    sources = lessons(options.names)
    for source in sources if options.half is None else sources[options.half :: 2]:
        fresh, cover = retold(source) if options.prose else execute(read(source))
        text = nbformat.writes(fresh) + "\n"
        problem = stale(source, fresh) if options.check else ""
        if len(text) > LIMIT:
            problem = problem or f"{len(text):,} bytes, more than {LIMIT:,}"
        elif not options.check:
            notebook_of(source).write_text(text, encoding="utf-8")
            if cover:
                write_cover(fresh, number_of(source), cover)
        print(f"{source.stem}: {problem or f'{len(text):,} bytes'}", flush=True)
        failures += bool(problem)
    if failures and options.check:
        print("python -m notebooks.build writes them anew", file=sys.stderr)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
