"""Load language models from disk, save them in transformers' format, and list the shipped ones."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lora_np import hub
from lora_np.autograd import value
from lora_np.checks import Array, StrPath, computed_dtype
from lora_np.files import decode_text, errors_at, open_regular, read_json, replacing, target_path
from lora_np.language.decoder import LanguageModel, build, decoder_settings
from lora_np.language.vocabulary import Vocabulary, read_vocabulary
from lora_np.lora import adapter_leaves
from lora_np.models import (
    HEAD,
    GGUFModel,
    gguf_tokenizer,
    open_gguf,
    open_model,
    tokenizer_settings,
)
from lora_np.nn import leaves
from lora_np.quantise import Quantised

MAX_TEXT = 256 * 2**20  # bytes; about a hundred times as much text as one run can train on

# Suffixes of tensors that some checkpoints store although the config determines them.
COMPUTED = ("inv_freq", "attn.bias", "attention.bias", "masked_bias")
CARD = "README.md"  # the model card; `save` keeps it, because the user may have written it
TOKENIZER, SETTINGS, GENERATION = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)
# The vocabulary's other files, which `save` copies unchanged.
BESIDE = (
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)
WRITTEN = ("config.json", hub.SINGLE, hub.INDEX, TOKENIZER, GENERATION, *BESIDE)
Weight = Array | Quantised | None
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")  # names of files that `save` may replace


def load(
    model: StrPath, *, dtype: npt.DTypeLike = np.float32, quantised: bool = False
) -> LanguageModel:
    """Load a frozen language model from a directory or GGUF file, or a shipped model by its name.

    Parameters
    ----------
    model : str or path
        A directory as transformers writes it (``config.json``, safetensors, ``tokenizer.json``), a
        ``.gguf`` file of llama.cpp, or a name from `shipped`. Nothing is ever downloaded.
    dtype : dtype
        The dtype to convert the arrays to: float32 or float64.
    quantised : bool
        Keep the weights of a GGUF file, or of a directory quantised by bitsandbytes, quantised in
        memory, and dequantise one layer at a time: this takes less memory and more time.

    Returns
    -------
    LanguageModel
        A frozen model; `lora_np.inject` adds adapters.

    Raises
    ------
    FileNotFoundError
        If neither a directory nor a shipped model has that name.
    ValueError
        If the family is not supported, a file is damaged, or a tensor is missing, unknown or of the
        wrong shape.

    See Also
    --------
    save : Write a model as a directory.
    shipped : List the models that the package ships.

    Examples
    --------
    >>> import tempfile
    >>> load(tempfile.mkdtemp())
    Traceback (most recent call last):
    lora_np.files.MissingFileError: ...config.json: no such file
    """
    dtype, path = computed_dtype(dtype), Path(model)
    if path.suffix == ".gguf":
        return from_gguf(open_gguf(path), dtype, quantised)
    folder = hub.directory(model)
    hub.inside(folder, "config.json")  # raises an error if the file is missing
    stored = open_model(folder)
    # quantization_config describes how the files store weights; the loaded model does not need it
    settings = {key: field for key, field in stored.config.items() if key != "quantization_config"}
    used: set[str] = set()

    def read(name: str) -> Any:
        used.update(stored.tensors_of(name))
        return as_array(stored.weight(name), dtype, quantised)

    there = {
        name: hub.inside(folder, name)
        for name in (TOKENIZER, GENERATION, *BESIDE)
        if os.path.lexists(folder / name)
    }
    beside = {name: read_bytes(there[name]) for name in BESIDE if name in there}
    vocabulary = (
        read_vocabulary(read_json(there[TOKENIZER]), beside) if TOKENIZER in there else None
    )
    generation = read_json(there[GENERATION]) if GENERATION in there else {}
    expected = decoder_settings(settings)
    if expected.tied and (head := read(HEAD)) is not None:
        # Some checkpoints also store a tied head. As in transformers, the head is then tied only if
        # it equals the embedding, whatever the config says.
        embedding = read(f"{expected.embedding}.weight")
        settings["tie_word_embeddings"] = np.array_equal(np.asarray(head), np.asarray(embedding))
    result = replace(build(settings, read, vocabulary=vocabulary), generation=generation)
    used.update(expected.constants)
    left = [name for name in stored.places if name not in used and not name.endswith(COMPUTED)]
    if left:
        raise ValueError(
            f"{folder}: {left[0]} has no place in a {settings['model_type']} model ({len(left)}"
            " such tensors)"
        )
    if quantised and not any(isinstance(leaf, Quantised) for _, leaf in leaves(result)):
        what = "load it without quantised=True (--quantised)"
        raise ValueError(f"{folder} holds no quantised weights: {what}")
    return result


def as_array(weight: Weight, dtype: npt.DTypeLike, quantised: bool) -> Weight:
    """Convert a weight, if any, to an array; with ``quantised``, keep a quantised weight."""
    if weight is None or (quantised and isinstance(weight, Quantised)):
        return weight
    return np.ascontiguousarray(weight, dtype=dtype)


def from_gguf(source: GGUFModel, dtype: npt.DTypeLike, quantised: bool) -> LanguageModel:
    """Build a language model from a GGUF file."""

    def read(name: str) -> Any:
        return as_array(source.weight(name), dtype, quantised)

    tokenizer = gguf_tokenizer(source.file.metadata, source.file.path)
    settings = tokenizer_settings(source.file.metadata)
    vocabulary = read_vocabulary(tokenizer, {SETTINGS: as_json(settings)}) if tokenizer else None
    return build(source.config, read, vocabulary=vocabulary)


def located_adapter(adapter: StrPath) -> Path:
    """Find an adapter by its path, by one of its files, or by the name of a shipped adapter.

    Parameters
    ----------
    adapter : str or path
        The path, or a name such as "king-james".

    Returns
    -------
    Path
        A file or directory for `lora_np.adapters.load`.

    Raises
    ------
    FileNotFoundError
        If there is no such file, directory or shipped adapter.

    Examples
    --------
    >>> located_adapter("king-james").name
    'king-james'
    """
    return Path(adapter) if Path(adapter).is_file() else hub.directory(adapter)


def read_text(source: StrPath) -> str:
    """Read the text of a file in UTF-8, UTF-16 or Windows-1252, or of standard input for "-".

    Parameters
    ----------
    source : str or path
        The file, or the name of a shipped text such as "genesis".

    Returns
    -------
    str
        The text, whose lines end in line feeds.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is empty, not text, larger than 256 MiB, or not a regular file.

    Examples
    --------
    >>> read_text("genesis").split()[3:6]
    ['In', 'the', 'beginning']
    """
    if str(source) == "-":
        content = limited(sys.stdin.buffer, "standard input")
    else:
        texts = hub.shipped_paths("texts")
        path = Path(source) if Path(source).exists() else texts.get(str(source))
        if path is None:
            raise FileNotFoundError(f"{source}: No such file; shipped texts: {', '.join(texts)}")
        content = read_bytes(path)
    with errors_at(source):
        text = decode_text(content)
    if not text.strip():
        raise ValueError(f"{source} is empty: there is no text in it")
    return text


def read_bytes(path: Path) -> bytes:
    """Read a regular file; raise an error if it has more than ``MAX_TEXT`` bytes."""
    with open_regular(path) as file:
        return limited(file, str(path))


def limited(stream: BinaryIO, name: str) -> bytes:
    """Read a stream to its end; raise an error as soon as it exceeds ``MAX_TEXT`` bytes."""
    pieces = itertools.islice(iter(lambda: stream.read(2**20), b""), MAX_TEXT // 2**20 + 1)
    if len(content := b"".join(pieces)) > MAX_TEXT:
        raise ValueError(f"{name} has more than {MAX_TEXT:,} bytes; use a part of it")
    return content


def shipped() -> list[str]:
    """List the names of the models that the package ships.

    Returns
    -------
    list of str
        Names that `load` accepts.

    See Also
    --------
    load : Load one of the models.

    Examples
    --------
    >>> shipped()
    ['austen']
    """
    return list(hub.shipped_paths("models"))


def save(
    model: LanguageModel, path: StrPath, *, dtype: str | None = None, force: bool = False
) -> None:
    """Write a model to a directory that transformers opens with ``from_pretrained``.

    Parameters
    ----------
    model : LanguageModel
        A model without adapters; merge them first by `lora_np.merge`.
    path : path
        The directory, which is created if it does not exist.
    dtype : {"float64", "float32", "bfloat16", "float16"}, optional
        The dtype to round the weights to; by default they are not rounded.
    force : bool
        Whether to replace an existing model.

    Raises
    ------
    ValueError
        If the model has adapters, or ``dtype`` is not one of these.
    FileExistsError
        If the directory already contains a model or a file that would be replaced, unless
        ``force``.

    See Also
    --------
    load : Read it back.

    Notes
    -----
    The directory is written completely or not at all. Files that came with the model are written
    unchanged: ``tokenizer.json``, the files that belong to it, such as a chat template, and
    ``generation_config.json``. The README.md of a replaced model stays; if there are other files,
    nothing is replaced.

    If an adapter was merged into only one of embedding and head, the head is stored separately, and
    ``tie_word_embeddings`` is false.

    Examples
    --------
    >>> import tempfile
    >>> copy = Path(tempfile.mkdtemp()) / "copy"
    >>> save(load("austen"), copy, dtype="float16")
    >>> sorted(path.name for path in copy.iterdir())
    ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']
    >>> load(copy).config["dtype"]
    'float16'
    """
    if adapted := adapter_leaves(model):
        raise ValueError(
            f"the model has an adapter ({adapted[0][0]}): save it, or lora_np.merge(model)"
        )
    target = target_path(path)
    there = [name for name in WRITTEN if os.path.lexists(target / name)]
    if there and not force:
        raise FileExistsError(f"{target} already holds {there[0]}; pass force=True to replace it")
    arrays = stored_arrays(model)
    kept = dtype or str(next(iter(arrays.values())).dtype)
    config = {**model.config, "tie_word_embeddings": HEAD not in arrays, "dtype": kept}
    config |= dict.fromkeys({"torch_dtype"} & config.keys(), kept)  # the older name of dtype
    files = {"config.json": as_json(config)}
    if model.generation:
        files[GENERATION] = as_json(model.generation)
    if isinstance(model.vocabulary, Vocabulary):
        files |= {
            SETTINGS: as_json({"tokenizer_class": "PreTrainedTokenizerFast"}),
            **model.vocabulary.files,
        }
        files[TOKENIZER] = as_json(model.vocabulary.tokenizer())
    empty = target.is_dir() and not any(target.iterdir())

    def writes(name: str) -> bool:
        return name in (*WRITTEN, CARD) or SHARD.fullmatch(name) is not None

    marks = (hub.SINGLE, hub.INDEX)
    with replacing(target, force=force or empty, writes=writes, marks=marks, keeps=[CARD]) as stage:
        hub.safetensors.save(arrays, stage / hub.SINGLE, dtype=dtype, metadata={"format": "pt"})
        for name, content in files.items():
            (stage / name).write_bytes(content)


def stored_arrays(model: LanguageModel) -> dict[str, Array]:
    """Return a model's arrays with the names and shapes that they have in a checkpoint."""
    settings = decoder_settings(model.config)
    values = {path: value(x) for paths, x in leaves(model) for path in paths.split(" = ")}
    arrays = {name: np.array(n, np.float32) for name, n in settings.constants.items()}
    for module in settings.spec.modules:
        name, whole = module.alias or module.name, values.get(module.name)
        if whole is not None and module.kind == "experts":
            home = name.rpartition(".")[0]
            for i, part in itertools.product(range(len(whole)), range(len(module.parts))):
                matrix = np.split(whole[i], len(module.parts))[part]
                arrays[f"{home}.{i}.{module.parts[part]}.weight"] = matrix
        elif whole is not None:
            arrays[name] = whole
        else:
            W, b = (values.get(f"{module.name}.{end}") for end in ("W", "b"))
            if not module.tied or not np.array_equal(
                np.asarray(W), values[f"{settings.embedding}.W"]
            ):
                arrays[f"{name}.weight"] = np.asarray(W).T if module.transposed else np.asarray(W)
            if b is not None:
                arrays[f"{name}.bias"] = b
    return arrays


def as_json(content: Mapping[str, Any]) -> bytes:
    """Convert a mapping to indented JSON in UTF-8."""
    return (json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n").encode()
