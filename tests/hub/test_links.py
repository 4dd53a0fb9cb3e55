"""A link that leads out of a model's or adapter's directory is never read, nor copied."""

import os
import shutil

import numpy as np
import pytest

from lora_np import adapters, hub, language
from lora_np.cli.dispatch import REPORT, run
from lora_np.hub import safetensors
from tests.drawing import FULL, few

SECRET = "the secret of the house"
MODEL = [
    "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "generation_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "merges.txt", "vocab.json",
    "tokenizer.model", "README.md", "LICENSE",
]  # fmt: skip
ADAPTER = ["adapter_config.json", "adapter_model.safetensors", "adapters.safetensors"]
LINKS = {
    "absolute": lambda place, secret: place.symlink_to(secret),
    "relative": lambda place, secret: place.symlink_to(os.path.relpath(secret, place.parent)),
    "of a link": lambda place, secret: (
        (secret.parent / "link").symlink_to(secret), place.symlink_to(secret.parent / "link"),
    ),
    "through a linked directory": lambda place, secret: (
        (place.parent / "sub").symlink_to(secret.parent), place.symlink_to("sub/" + secret.name),
    ),
    "to itself": lambda place, secret: place.symlink_to(place.name),
    "to nothing": lambda place, secret: place.symlink_to(secret.parent / "absent"),
    "to a directory": lambda place, secret: place.symlink_to(secret.parent),
    "to a pipe": lambda place, secret: (
        os.mkfifo(secret.parent / "pipe"), place.symlink_to(secret.parent / "pipe"),
    ),
}  # fmt: skip
CASES = [(kind, name, link) for kind, names in (("model", MODEL), ("adapter", ADAPTER))
         for name in names for link in LINKS]  # fmt: skip
USES = {
    "model": [
        ("generate", "{}", "--tokens", "1"),
        ("count", "{}"),
        ("merge", "{}", "king-james", "-o", "{out}"),
        ("extract", "{}", "austen", "--rank", "1", "-o", "{out}"),
        ("finetune", "{}", "genesis", "--dry-run", "-o", "{out}"),
        ("convert", "king-james", "--to", "gguf", "--base", "{}", "-o", "{out}.gguf"),
    ],
    "adapter": [
        ("inspect", "{}"),
        ("check", "{}"),
        ("convert", "{}", "--to", "peft", "-o", "{out}"),
        ("count", "llama-3-8b", "--config", "{}"),
        ("generate", "austen", "--adapter", "{}", "--tokens", "1"),
        ("merge", "austen", "{}", "-o", "{out}"),
    ],
}


def test_there_are_a_hundred_directories():
    assert len(CASES) >= 100


def linked(tmp_path, kind, name, link):
    """A directory with one file behind a link, and the secret next to it."""
    folder, outside = tmp_path / "model", tmp_path / "outside"
    shutil.copytree(hub.directory("austen" if kind == "model" else "king-james"), folder)
    outside.mkdir()
    secret = outside / "secret"
    place = folder / name
    if place.exists():  # the secret is a file of the right form, so that it could be read
        shutil.move(place, secret)
    elif name.endswith(".json"):
        secret.write_text(f'{{"chat_template": "{SECRET}", "eos_token": "{SECRET}"}}')
    elif name.endswith(".safetensors"):
        safetensors.save({SECRET: np.ones((1, 1))}, secret)
    else:
        secret.write_text(SECRET)
    LINKS[link](place, secret)
    return folder, secret


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes as POSIX has them")
@pytest.mark.parametrize(("kind", "name", "link"), few(CASES, 5))
def test_no_link_leads_out(kind, name, link, tmp_path, capsys):
    folder, secret = linked(tmp_path, kind, name, link)
    content = secret.read_bytes()
    for number, use in enumerate(USES[kind] if FULL else USES[kind][:3]):
        out = tmp_path / f"out{number}"
        status = run([part.format(folder, out=out) for part in use])
        text, err = capsys.readouterr()
        assert status in (0, 1, 3), err
        assert status != 1 or len(err.strip().splitlines()) == 1, err
        assert REPORT not in err
        assert SECRET not in text + err
        written = [file for file in out.rglob("*") if file.is_file()] if out.is_dir() else []
        assert all(SECRET.encode() not in file.read_bytes() for file in written)
        if status == 0:  # the use does not need this file: then nothing of it went anywhere
            assert all(file.read_bytes() != content for file in written)


def test_what_is_read_beside_a_model_is_not_copied_from_elsewhere(tmp_path):
    folder, _ = linked(tmp_path, "model", "merges.txt", "absolute")
    with pytest.raises(ValueError, match=r"merges\.txt: a link that leads out of the directory"):
        language.load(folder)


def test_links_from_a_snapshot_to_its_blobs_are_read(tmp_path):
    """The Hugging Face cache keeps files as links: snapshots/COMMIT/NAME -> ../../blobs/HASH."""
    for name, read in (("austen", language.load), ("king-james", adapters.load)):
        snapshot = tmp_path / name / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True)
        (tmp_path / name / "blobs").mkdir()
        for file in hub.directory(name).iterdir():
            if file.is_file():
                shutil.copy(file, tmp_path / name / "blobs" / f"hash-{file.name}")
                (snapshot / file.name).symlink_to(f"../../blobs/hash-{file.name}")
        assert read(snapshot)
