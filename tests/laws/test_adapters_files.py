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


def recover(target):
    """What the next run does first."""
    with contextlib.suppress(KeyError), replacing(target, force=True, writes=OURS.__contains__):
        raise KeyError


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of ours runs after it."""


STEPS = ["mkdir", "rename", "fsync", "rmtree"]


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("step", STEPS)
def test_a_death_before_any_step_leaves_the_old_or_the_new_and_the_next_run_succeeds(
    tmp_path, monkeypatch, step, which
):
    target = old_target(tmp_path)
    old = content(target)
    calls = []
    places = {"mkdir": os, "rename": os, "fsync": os, "rmtree": shutil}
    real = getattr(places[step], step)

    def dying(*args, **kwargs):
        calls.append(args)
        if len(calls) == which + 1:
            # a dead process removes nothing
            patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
            patch.setattr(os, "rename", lambda *args: None)
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(places[step], step, dying)
        try:
            with replacing(target, force=True, writes=OURS.__contains__) as stage:
                write(stage)
        except Killed:
            pass
        patch.undo()
    new = dict.fromkeys(old, b"new")
    standing = [
        content(place)
        for place in (target, *tmp_path.glob(".target.*.[no][el][wd]"))
        if place.is_dir()
    ]
    assert any(found in (old, new) for found in standing)
    recover(target)
    assert content(target) in (old, new)
    assert os.listdir(tmp_path) == ["target"]
    with replacing(target, force=True, writes=OURS.__contains__) as stage:
        write(stage)
    assert content(target) == new
    assert os.listdir(tmp_path) == ["target"]


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
    mine = [
        ".target.writing-notes",
        ".target.replaced",
        f".target.{'0' * 32}.new",
        f".target.{'0' * 32}.old",
    ]
    for name in mine:
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter.txt").write_text("dear")
    for _ in range(2):
        with replacing(tmp_path / "target", force=True, writes=OURS.__contains__) as stage:
            write(stage)
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, "target"])
    assert all((tmp_path / name / "letter.txt").exists() for name in mine)


@pytest.mark.parametrize("kind", ["file", "key and more", "folder", "empty folder", "link"])
def test_what_is_in_the_place_of_our_lock_is_not_touched(tmp_path, kind):
    lock = tmp_path / ".target.lora-np"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "new").write_text("")
    if kind in ("file", "key and more"):
        lock.write_text("dear" if kind == "file" else "5" * 32 + "\n")
    elif kind == "link":
        lock.symlink_to(tmp_path / "home" / "new")
    elif kind == "folder":
        shutil.copytree(tmp_path / "home", lock)
    else:
        lock.mkdir()
    before = content(tmp_path)
    with (
        pytest.raises(ValueError, match="is in the way, and was not made by lora-np; move it"),
        replacing(tmp_path / "target", force=True, writes=OURS.__contains__),
    ):
        pass
    assert content(tmp_path) == before
    assert lock.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_the_place_of_our_lock_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".target.lora-np")
    with pytest.raises(ValueError, match="is in the way"):
        recover(tmp_path / "target")


def test_of_two_writers_of_one_target_the_second_is_told(tmp_path):
    target = old_target(tmp_path)
    with replacing(target, force=True, writes=OURS.__contains__) as stage:
        write(stage)
        with (
            pytest.raises(ValueError, match="target: another run is writing it"),
            replacing(target, force=True, writes=OURS.__contains__),
        ):
            pass
    assert content(target)[Path("adapter_config.json")] == b"new"
    assert os.listdir(tmp_path) == ["target"]


def test_what_was_made_after_a_crash_is_not_deleted(tmp_path):
    key = "5" * 32
    stage, aside = tmp_path / f".target.{key}.new", tmp_path / f".target.{key}.old"
    for folder, text in ((stage, "new"), (aside, "old"), (tmp_path / "target", "mine")):
        folder.mkdir(parents=True)
        write(folder, text)
    (tmp_path / ".target.lora-np").write_text(key)
    before = content(tmp_path)
    with pytest.raises(
        ValueError, match="has been made since a run that was to replace it was killed"
    ):
        recover(tmp_path / "target")
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["letter", ".target.new", f".target.{'0' * 32}.new", f".target.{'0' * 32}.old"]
)
def test_next_to_what_a_dead_run_left_nothing_else_is_deleted(tmp_path, name):
    key = "5" * 32
    for folder in (tmp_path / f".target.{key}.new", tmp_path / name):
        folder.mkdir(parents=True)
        (folder / "text").write_text("dear")
    (tmp_path / ".target.lora-np").write_text(key)
    recover(tmp_path / "target")
    assert content(tmp_path) == {Path(name, "text"): b"dear"}
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("length", [100, 101, 240])
def test_a_long_name_is_no_trouble(tmp_path, length):
    target = tmp_path / ("x" * length)
    for _ in range(2):
        with replacing(target, force=True, writes=OURS.__contains__) as stage:
            write(stage)
    assert os.listdir(tmp_path) == [target.name]


def test_the_stage_cannot_be_guessed(tmp_path):
    stages = []
    for _ in range(2):
        with replacing(tmp_path / "target", force=True, writes=OURS.__contains__) as stage:
            write(stage)
            stages.append(stage.name)
    assert stages[0] != stages[1]
    assert all(len(name) >= 32 for name in stages)


@pytest.mark.skipif(sys.platform == "emscripten", reason="starts threads")
def test_many_writers_of_one_target_are_told_of_each_other_and_of_nothing_else(tmp_path):
    def writing(_):
        try:
            with replacing(tmp_path / "target", force=True, writes=OURS.__contains__) as stage:
                write(stage)
        except ValueError as error:
            return str(error).removeprefix(f"{tmp_path}/")

    with ThreadPoolExecutor(4) as pool:
        said = set(pool.map(writing, range(400)))
    assert None in said
    assert said <= {None, "target: another run is writing it"}
    assert os.listdir(tmp_path) == ["target"]
