"""What is published follows from one place in pyproject.toml, and nothing claims to be where it is
not.
"""

import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import runpy
import sys
import tarfile
import tomllib
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import lora_np
from lora_np.version import __version__

ROOT = Path(__file__).parents[2]
PLACE = ("someone/lora_np", "https://someone.example/lora_np/")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hook():
    return load(ROOT / "hatch_build.py")


@pytest.fixture(scope="module")
def citation():
    before = list(sys.path)
    try:
        return load(ROOT / "docs" / "_ext" / "citation.py")
    finally:
        sys.path[:] = before


def test_readme_has_no_link_into_the_checkout(hook):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = re.compile(r"\]\((?![a-z]+:|#)")
    assert relative.search(readme)
    for repository in ("", PLACE[0]):
        assert not relative.search(hook.readable_anywhere(readme, repository))


def test_readme_leads_to_the_repository(hook):
    text = "See [idea](docs/idea.md#x), ![a figure](docs/f.png), [paper](https://arxiv.org/abs/2106.09685), [up](#up)."
    assert hook.readable_anywhere(text, PLACE[0]) == (
        "See [idea](https://github.com/someone/lora_np/blob/main/docs/idea.md#x), "
        "![a figure](https://raw.githubusercontent.com/someone/lora_np/main/docs/f.png), "
        "[paper](https://arxiv.org/abs/2106.09685), [up](#up)."
    )
    assert hook.readable_anywhere(text, "") == (
        "See idea, *a figure.*, [paper](https://arxiv.org/abs/2106.09685), [up](#up)."
    )


def test_commands_install_the_package_once_it_is_there(hook):
    text = (
        'Run `pip install ".[notebooks]"`, `.venv/bin/pip install .` or `pip install -e ".[test]"`.'
    )
    assert hook.installable(text, "") == text
    assert hook.installable(text, "lora-np") == (
        'Run `pip install "lora-np[notebooks]"`, `.venv/bin/pip install lora-np` or `pip install -e ".[test]"`.'
    )
    text = "With Python, from a copy\nof the repository:\n\n    pip wheel '.[a,b]' -w .\n    uv pip install ../x .5 ./y"
    assert hook.installable(text, "lora-np") == (
        "With Python:\n\n    pip wheel 'lora-np[a,b]' -w .\n    uv pip install ../x .5 ./y"
    )


def test_every_way_to_install_goes_through_the_switch(hook):
    """Pages, and the README, name the package only as `.`; whoever changes the code needs ``-e``
    and a copy.
    """
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "".join(
        page.read_text(encoding="utf-8") for page in pages if page.name != "publishing.md"
    )
    named = re.findall(r"pip (?:install|wheel) [\"']?lora[-_]np.*", text)
    assert not named or hook.package()
    left = [
        line
        for line in hook.installable(text, "lora-np").splitlines()
        if re.search(r"pip \w+ .*\.\[", line)
    ]
    assert all("-e" in line for line in left), left


def test_what_is_tried_before_it_is_true(hook, monkeypatch):
    monkeypatch.setenv("PUBLICATION", str(ROOT / "tests" / "published.toml"))
    assert all(hook.place().values())
    assert (
        hook.place().keys()
        == tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["publication"].keys()
    )
    assert hook.publication() == (hook.place()["repository"], hook.place()["site"])
    assert hook.package() == "lora-np"


def test_binder_installs_this_package_on_a_python_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wish = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").strip()
    assert re.fullmatch(r"\.\[(\w+)\]", wish)[1] in project["optional-dependencies"]
    runtime = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip()
    version = runtime.removeprefix("python-")
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_addresses_are_absent_until_they_are_filled_in(hook):
    assert hook.urls("", "") == {}
    assert hook.urls("", PLACE[1]) == {"Documentation": PLACE[1]}
    assert set(hook.urls(*PLACE)) == {"Documentation", "Source", "Issues", "Changelog"}


def test_citation_is_what_pyproject_says(citation, hook):
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert citation.written(text, __version__, *hook.publication()) == text
    assert f"\nversion: {__version__}\n" in text


def test_readme_is_what_pyproject_says(citation, hook):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert citation.readme(text, hook.package(), hook.publication()[1]) == text
    public = citation.readme(text, "lora-np", PLACE[1])
    assert f"**Try it in the browser**: [the puzzles and the course]({PLACE[1]}), " in public
    assert ".venv/bin/pip install lora-np && " in public
    assert citation.readme(public, "lora-np", PLACE[1]) == public


@pytest.fixture
def settings(monkeypatch):
    """``settings(published, version)``: what docs/conf.py sets."""

    def read(published, version):
        monkeypatch.setenv(
            "PUBLICATION", str(ROOT / ("tests/published.toml" if published else "pyproject.toml"))
        )
        monkeypatch.setenv("SITE_VERSION", version)
        monkeypatch.setattr(sys, "path", list(sys.path))
        return runpy.run_path(str(ROOT / "docs" / "conf.py"))

    return read


def test_a_site_that_is_nowhere_names_no_address(settings, hook):
    if any(hook.place().values()):
        pytest.skip("published")
    for version in ("", "latest", "1.2.3"):
        found = settings(False, version)
        assert {"sphinx.ext.linkcode", "sphinxext.opengraph", "sphinx_sitemap"}.isdisjoint(
            found["extensions"]
        )
        assert not {"html_baseurl", "ogp_site_url", "linkcode_resolve"} & found.keys()
        assert found["lesson_links_repository"] == ""
        assert "source_repository" not in found["html_theme_options"]


@pytest.mark.parametrize(
    ("version", "ref"), [("", "main"), ("latest", "main"), ("1.2.3", "v1.2.3")]
)
def test_a_version_leads_to_its_own_sources(settings, version, ref):
    found = settings(True, version)
    assert found["lesson_links_ref"] == found["html_theme_options"]["source_branch"] == ref
    assert f"/blob/{ref}/lora_np/" in found["linkcode_resolve"](
        "py", {"module": "lora_np", "fullname": "fit"}
    )
    assert found["html_baseurl"] == f"https://lora-np.example/{version}/".replace(
        "//", "/"
    ).replace(":/", "://")
    edits = "edit" in found["html_theme_options"]["top_of_page_buttons"]
    assert edits == (ref == "main")  # nobody edits a tag


def test_what_a_shared_link_shows(settings):
    """Every text is whole, and beside the others; the numbers are those of the package."""
    settings(True, "latest")
    import card

    figure = card.draw()
    figure.canvas.draw()
    assert figure.canvas.get_width_height() == (card.WIDTH, card.HEIGHT) == (1200, 630)
    shown = [*figure.texts, *figure.axes]
    boxes = [part.get_window_extent() for part in shown]
    for box, part in zip(boxes, shown, strict=True):
        assert 40 <= box.x0 < box.x1 <= 1160, part
        assert 40 <= box.y0 < box.y1 <= 590, part
    for (one, what), (other, that) in combinations(zip(boxes, shown, strict=True), 2):
        assert not one.overlaps(other), (what, that)
    text = " ".join(part.get_text() for part in figure.texts)
    assert f"{lora_np.count_full(100, 120):,} parameters" in text
    assert f"{lora_np.count_lora(100, 120, rank=card.RANK):,} parameters" in text
    assert f"rank {card.RANK}" in text
    assert f"rank {card.RANK}" in card.alt()


@given(st.lists(st.sampled_from([("", ""), PLACE, ("", PLACE[1]), (PLACE[0], "")]), min_size=1))
def test_citation_forgets_earlier_addresses(citation, places):
    text = start = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for place in places:
        text = citation.written(text, "1.2.3", *place)
    assert text == citation.written(start, "1.2.3", *places[-1])
    assert (PLACE[1] in text) == bool(places[-1][1])


def test_source_links_lead_to_what_they_name():
    links = load(ROOT / "docs" / "_ext" / "source_links.py")
    resolve = links.resolver(PLACE[0], "main")
    found = 0
    for package in pkgutil.walk_packages(lora_np.__path__, "lora_np."):
        if package.name.endswith(("__main__", ".template_sandbox")):
            continue
        module = importlib.import_module(package.name)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            members = [n for n in vars(thing) if n[0] != "_"] if isinstance(thing, type) else []
            for full in (name, *(f"{name}.{member}" for member in members)):
                address = resolve("py", {"module": package.name, "fullname": full})
                if address is None:
                    continue
                start = f"https://github.com/{PLACE[0]}/blob/main/"
                file, first, last = re.fullmatch(
                    rf"{start}(lora_np/.+\.py)#L(\d+)-L(\d+)", address
                ).groups()
                lines = (
                    (ROOT / file)
                    .read_text(encoding="utf-8")
                    .splitlines()[int(first) - 1 : int(last)]
                )
                found += any(re.match(r"\s*(def|class) ", line) for line in lines)
    assert found > 500
    assert resolve("py", {"module": "lora_np.hub", "fullname": "ATTENTION"}) is None


def test_classifiers_claim_what_ci_runs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = {
        m[1] for c in project["classifiers"] if (m := re.fullmatch(r".*Python :: (3\.\d+)", c))
    }
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"^ +python: \[(.*)\]$", workflow, flags=re.MULTILINE)
    assert "python-version: ${{ matrix.python }}" in workflow
    here = set(re.findall(r"python(3\.\d+)", run)) | {"3.12"}  # Pyodide 0.27 is Python 3.12
    assert "tests/pyodide/run" in run
    assert claimed == here | set(re.findall(r"3\.\d+", matrix))


def test_actions_are_pinned():
    uses = [
        line.split("uses:")[1].strip()
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert len(uses) > 8
    known = r"(actions/[a-z-]+|pypa/gh-action-pypi-publish)"
    assert all(re.fullmatch(rf"{known}@[0-9a-f]{{40}} # v[0-9.]+", use) for use in uses), uses


@pytest.fixture(scope="module")
def versions():
    return load(ROOT / "docs" / "_ext" / "versions.py")


def test_released_sites_are_kept_as_they_were_built(versions, tmp_path):
    released, public = tmp_path / "released", tmp_path / "public"
    released.mkdir()
    for version in ("0.9.0", "0.10.0", "0.10.0rc1"):
        page = tmp_path / version / "index.html"
        page.parent.mkdir()
        page.write_text(f"built as {version}", encoding="utf-8")
        with tarfile.open(released / f"site-{version}.tar.gz", "w:gz") as archive:
            archive.add(page.parent, version)
    (public / "latest").mkdir(parents=True)
    versions.collect(public, released)
    assert (public / "0.9.0" / "index.html").read_text(encoding="utf-8") == "built as 0.9.0"
    found = json.loads((public / "versions.json").read_text(encoding="utf-8"))
    assert found == ["latest", "0.10.0", "0.10.0rc1", "0.9.0"]
    assert "url=0.10.0/" in (public / "index.html").read_text(encoding="utf-8")


def test_before_the_first_release_the_site_is_mains(versions, tmp_path):
    (tmp_path / "latest").mkdir()
    versions.collect(tmp_path, tmp_path / "nothing")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "url=latest/" in page
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\';' in page


def test_release_notes_are_the_section_of_the_version(versions):
    changelog = "# Changelog\n\n## 1.1.0 (2027)\n\n- New.\n\n## 1.1\n\n- Old.\n"
    assert versions.notes("1.1.0", changelog) == "- New.\n"
    assert versions.notes("1.1", changelog) == "- Old.\n"
    with pytest.raises(SystemExit, match=r"no section ## 2\.0"):
        versions.notes("2.0", changelog)
    ours = versions.notes(__version__, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert "\n## " not in ours
    assert "### " in ours


def test_the_next_release_is_one_page_with_a_table_of_names(versions):
    """What a name is called now exists; what it was called does not."""
    page = versions.notes(__version__, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert page.count("\n") <= 120
    rows = re.findall(r"^\| (.+) \| (.+) \|$", page, flags=re.MULTILINE)
    assert rows[0] == ("old", "new")
    assert len(rows) > 30
    named = lambda cells: re.findall(r"`((?:lnp|[a-z]+)(?:\.\w+)+)", " ".join(cells))
    old, new = (named(cells) for cells in zip(*rows, strict=True))
    assert len(old) > 30
    assert not [name for name in new if not is_public(name)]
    assert not [name for name in old if is_public(name)]


def is_public(name):
    """Whether a name such as ``lnp.count`` or ``models.select`` can be imported."""
    thing, *parts = lora_np, *name.removeprefix("lnp.").split(".")
    for part in parts:
        if not hasattr(thing, part):
            if thing is not lora_np and not inspect.ismodule(thing):
                return False
            try:
                importlib.import_module(f"{thing.__name__}.{part}")
            except ImportError:
                return False
        thing = getattr(thing, part)
    return True


def test_what_builds_a_release_and_the_site_is_pinned():
    """Every package that they install, directly or not, has one version, from no named place."""
    lines = (ROOT / ".github" / "tools.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[\w.]+", line) for line in pins), pins
    pinned = {line.partition("==")[0] for line in pins}
    assert len(pinned) == len(pins)
    assert "uv pip compile" in "\n".join(lines)

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    tools = (ROOT / ".github" / "tools.in").read_text(encoding="utf-8").splitlines()
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    needed += [*extras["docs"], *extras["test"], *extras["language"]]
    needed += [line for line in tools if not line.startswith("#")]
    names = {re.match(r"[A-Za-z0-9-]+", need)[0].lower() for need in needed} - {"lora-np"}
    assert names <= pinned


@pytest.mark.parametrize("name", ["release.yml", "site.yml"])
def test_jobs_that_install_take_pinned_versions_only(name):
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    jobs = re.split(r"(?m)^  (?=\w+:$)", text.partition("\njobs:\n")[2])
    installing = [
        job for job in jobs if re.search(r"pip3? install|-m build|versions.py build", job)
    ]
    assert len(installing) == text.count("versions.py build") + text.count("-m build")
    for job in installing:
        for variable in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):
            assert f"\n      {variable}: ${{{{ github.workspace }}}}/.github/tools.txt\n" in job
