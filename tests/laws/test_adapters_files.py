"""Writes that are interrupted at any step, targets that must not be replaced, names that lead
elsewhere.
"""

import contextlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from lora_np import adapters, files
from lora_np.hub import inside

OURS = ("adapter_config.json", "more", "more/file")
replacing = partial(files.replacing, marks=OURS[:1])
FORCED = {"force": True, "writes": OURS.__contains__}


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def write(folder, text="new"):
    (folder / "adapter_config.json").write_text(text)
    (folder / "more").mkdir()
    (folder / "more" / "file").write_text(text)


def old_target(tmp_path):
    (tmp_path / "target").mkdir()
    write(tmp_path / "target", "old")
    return tmp_path / "target"


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of ours runs after it."""


STEPS = ["mkdir", "replace", "rename", "fsync", "rmtree"]
TOLD = r"target: a run that replaced it was killed; rename .*\.target\.old back to target$"


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("exchanges", [False, True])
def test_a_death_before_any_step_leaves_the_old_or_the_new_and_at_most_one_more(
    tmp_path, monkeypatch, exchanges, step, which
):
    """Without exchange the old one may have its name aside, and whoever comes next is told."""
    target = old_target(tmp_path)
    old = content(target)
    calls = []
    places = {"rmtree": shutil}
    real = getattr(places.get(step, os), step)

    def dying(*args, **kwargs):
        calls.append(args)
        if len(calls) == which + 1:
            # a dead process removes and renames nothing
            patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
            patch.setattr(os, "rename", lambda *args: None)
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        if not exchanges:
            patch.setattr(files, "_exchanged", lambda one, other: False)
        patch.setattr(places.get(step, os), step, dying)
        with contextlib.suppress(Killed), replacing(target, **FORCED) as stage:
            write(stage)
    new = dict.fromkeys(old, b"new")
    aside = tmp_path / ".target.old"
    left = [name for name in os.listdir(tmp_path) if name not in ("target", aside.name)]
    assert len(left) <= 1
    assert all(name.startswith(".lora-np-") for name in left)
    if not target.exists():
        assert not exchanges
        assert content(aside) == old
        assert content(tmp_path / left[0]) == new
        with pytest.raises(files.FileError, match=TOLD):
            adapters.load(target)
        with pytest.raises(files.FileError, match=TOLD), replacing(target, **FORCED):
            pass
        os.rename(aside, target)
    assert content(target) in (old, new)
    if aside.exists():  # only its removal was missing, and nobody else removes it
        assert not exchanges
        shutil.rmtree(aside)
    with replacing(target, **FORCED) as stage:
        write(stage)
    assert content(target) == new
    assert {*os.listdir(tmp_path)} == {"target", *left}


def test_an_error_while_writing_leaves_what_was_there(tmp_path):
    target = old_target(tmp_path)
    old = content(target)

    def interrupted():
        with replacing(target, force=True, writes=OURS.__contains__) as stage:
            write(stage)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert content(target) == old
    assert os.listdir(tmp_path) == ["target"]


def test_a_target_is_replaced_only_when_asked(tmp_path):
    target = old_target(tmp_path)
    with (
        pytest.raises(ValueError, match=r"target: already exists; pass force=True \(--force\)"),
        replacing(target, force=False, writes=OURS.__contains__),
    ):
        pass
    assert content(target)


@pytest.mark.parametrize("kind", ["file", "link", "stranger"])
def test_what_is_no_adapter_or_checkpoint_is_never_replaced(tmp_path, kind):
    target = tmp_path / "target"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(tmp_path / "home")
    else:
        shutil.copytree(tmp_path / "home", target)
    with (
        pytest.raises(ValueError, match="not replaced"),
        replacing(target, force=True, writes=OURS.__contains__),
    ):
        pass
    assert (tmp_path / "home" / "letter.txt").exists()


def test_a_target_that_holds_an_input_is_not_replaced(tmp_path):
    target = old_target(tmp_path)
    with (
        pytest.raises(ValueError, match="holds the input"),
        replacing(target, force=True, writes=OURS.__contains__, inputs=[target / "more"]),
    ):
        pass


@pytest.mark.parametrize("way", ["adapter", "adapter/", "link", "adapter/../adapter"])
@pytest.mark.parametrize("force", [False, True])
def test_an_adapter_is_not_replaced_by_what_is_made_of_it(
    adapter, make_adapter, way, force, tmp_path
):
    (tmp_path / "link").symlink_to(adapter)
    before, out, other = content(adapter), f"{tmp_path}/{way}", make_adapter("other")
    for write in (
        lambda: adapters.resize(adapter, out, rank=1, force=force),
        lambda: adapters.combine([other, adapter], out, force=force),
        lambda: adapters.save(adapters.load(adapter), out, dtype="float16", force=force),
    ):
        with pytest.raises(
            ValueError, match="is an input itself, and so is not replaced; write to another path"
        ):
            write()
        assert content(adapter) == before


@pytest.mark.parametrize(
    ("command", "inputs"),
    [
        (adapters.extract, ["base", "tuned"]),
        (adapters.merge, ["base", "adapter"]),
    ],
)
def test_a_checkpoint_and_an_adapter_never_replace_what_they_are_made_of(
    adapter, make_checkpoint, tmp_path, command, inputs
):
    make_checkpoint("base")
    make_checkpoint("tuned", seed=2)
    options = {"rank": 1} if command is adapters.extract else {}
    before = content(tmp_path)
    for target in inputs:
        for force in (True, False):  # force is not advised where it would not do
            with pytest.raises(
                ValueError, match=f"{target}: is an input itself, and so is not replaced"
            ):
                command(*(tmp_path / name for name in (*inputs, target)), force=force, **options)
    assert content(tmp_path) == before


def test_an_input_is_known_through_a_link(adapter, make_checkpoint, tmp_path):
    base = make_checkpoint("base")
    (tmp_path / "link").symlink_to(base)
    with pytest.raises(ValueError, match="base: is an input itself"):
        adapters.merge(tmp_path / "link", adapter, base, force=True)


FOREIGN = [
    "checkpoint-500/optimizer.pt",
    "empty/",
    "notes.txt",
    ".git/HEAD",
    "README.md/x",
    "more.safetensors",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_directory_that_holds_what_would_be_lost_is_not_replaced(
    adapter, make_adapter, make_checkpoint, tmp_path, name
):
    base = make_checkpoint("base")
    adapters.merge(base, adapter, tmp_path / "merged")
    for target in (adapter, tmp_path / "merged"):
        place = target / name
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.write_text("mine")
    other = make_adapter("other")
    before = content(tmp_path)
    first = name if name.startswith("README") else name.split("/")[0]
    lost = f"adapter: holds {first}, which would be lost"
    with pytest.raises(ValueError, match=lost):
        adapters.resize(other, adapter, rank=1, force=True)
    with pytest.raises(ValueError, match=lost):
        adapters.combine([other], adapter, force=True)
    with pytest.raises(ValueError, match=lost):
        adapters.save(adapters.load(other), adapter, force=True)
    with pytest.raises(ValueError, match=lost):
        # refused before anything is compared
        adapters.extract(base, base, adapter, rank=1, force=True)
    with pytest.raises(ValueError, match=f"merged: holds {first}, which would be lost"):
        adapters.merge(base, other, tmp_path / "merged", force=True)
    assert content(tmp_path) == before


def test_an_adapter_does_not_replace_a_checkpoint_nor_the_reverse(
    adapter, make_checkpoint, tmp_path
):
    base = make_checkpoint("base")
    adapters.merge(base, adapter, tmp_path / "merged")
    with pytest.raises(ValueError, match=r"merged: holds config.json, which would be lost"):
        adapters.resize(adapter, tmp_path / "merged", rank=1, force=True)
    adapters.resize(adapter, tmp_path / "small", rank=1)
    with pytest.raises(ValueError, match=r"small: holds adapter_config.json, which would be lost"):
        adapters.merge(base, adapter, tmp_path / "small", force=True)


def test_the_card_of_an_adapter_stays(adapter, make_adapter):
    (adapter / "README.md").write_text("what it was trained on")
    adapters.resize(make_adapter("other"), adapter, rank=1, force=True)
    assert (adapter / "README.md").read_text() == "what it was trained on"
    assert {module.rank for module in adapters.load(adapter).values()} == {1}


def test_a_merged_checkpoint_is_replaced_by_one_in_other_shards(adapter, make_checkpoint, tmp_path):
    base = make_checkpoint("base", shards=3)
    (base / "templates").mkdir()
    (base / "templates" / "chat.jinja").write_text("hello")
    for again in (base, base, make_checkpoint("single", shards=1)):
        (again / "templates").mkdir(exist_ok=True)
        (again / "templates" / "chat.jinja").write_text("hello")
        adapters.merge(again, adapter, tmp_path / "merged", force=True)
        assert sorted(content(tmp_path / "merged")) == sorted(content(again))


def test_missing_parents_are_made_and_go_again_if_nothing_is_written(tmp_path):
    target = tmp_path / "a" / "b" / "target"

    def interrupted():
        with replacing(target, force=False, writes=OURS.__contains__):
            assert target.parent.is_dir()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyError):
        interrupted()
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]  # which this run did not make
    with replacing(target, force=False, writes=OURS.__contains__):
        pass
    assert target.is_dir()


def test_permissions_are_those_of_any_new_directory(tmp_path):
    with replacing(tmp_path / "target", force=False, writes=OURS.__contains__) as stage:
        write(stage)
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../file", "/etc/passwd", "a\\b", "a\0b"])
def test_names_that_lead_out_of_the_directory_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="must be a plain name"):
        inside(tmp_path, name)


def test_links_that_lead_out_of_the_directory_are_refused(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder" / "own").write_text("y")
    (tmp_path / "folder" / "fine").symlink_to("own")
    (tmp_path / "folder" / "round").symlink_to("round")
    assert inside(tmp_path / "folder", "fine").read_text() == "y"
    with pytest.raises(ValueError, match="a link that leads out"):
        inside(tmp_path / "folder", "link")
    with pytest.raises(ValueError, match="no such file"):
        inside(tmp_path / "folder", "round")


def test_links_into_the_blobs_of_a_hugging_face_cache_are_followed(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "123"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (tmp_path / "models--a--b" / "blobs" / "abc").write_text("x")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    assert inside(snapshot, "config.json").read_text() == "x"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(ValueError, match="not a regular file"):
        adapters.load(tmp_path)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_appears_meanwhile_is_not_deleted(tmp_path, force):
    target = tmp_path / "target"

    def run():
        with replacing(target, force=force, writes=OURS.__contains__) as stage:
            write(stage)
            target.mkdir()
            (target / "letter.txt").write_text("dear")

    with pytest.raises(ValueError, match=r"already exists|would be lost"):
        run()
    assert content(tmp_path) == {Path("target/letter.txt"): b"dear"}


def test_names_that_look_like_ours_are_left_alone(tmp_path):
    mine = [".target.new", f".lora-np-{'0' * 16}", ".lora-np-notes"]
    for name in mine:
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter.txt").write_text("dear")
    for _ in range(2):
        with replacing(tmp_path / "target", force=True, writes=OURS.__contains__) as stage:
            write(stage)
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, "target"])
    assert all((tmp_path / name / "letter.txt").exists() for name in mine)


@pytest.mark.parametrize("length", [100, 240, 255])
def test_a_long_name_is_no_trouble(tmp_path, length):
    target = tmp_path / ("x" * length)
    for _ in range(2):
        with replacing(target, force=True, writes=OURS.__contains__) as stage:
            write(stage)
    assert os.listdir(tmp_path) == [target.name]


@pytest.mark.skipif(sys.platform != "linux", reason="exchanges directories in two steps")
def test_of_many_writers_of_one_directory_the_last_wins(tmp_path):
    def writing(_):
        with replacing(tmp_path / "target", force=True, writes=OURS.__contains__) as stage:
            write(stage)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(writing, range(400))) == {None}
    assert os.listdir(tmp_path) == ["target"]


def test_a_directory_that_is_exchanged_while_it_is_listed_is_listed_again(tmp_path, monkeypatch):
    target, listing = tmp_path / "target", os.listdir
    for name in ("target", "other"):
        (tmp_path / name).mkdir()
        write(tmp_path / name)

    def interrupted(path):
        if Path(path) == target and (tmp_path / "other").exists():
            old = target.rename(tmp_path / "old")
            (tmp_path / "other").rename(target)
            (old / "adapter_config.json").unlink()  # as its owner does next
            return listing(old)
        return listing(path)

    monkeypatch.setattr(os, "listdir", interrupted)
    with replacing(target, force=True, writes=OURS.__contains__) as stage:
        write(stage)
    assert sorted(listing(tmp_path)) == ["old", "target"]
