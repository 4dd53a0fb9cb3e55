"""Read and write adapters on disk; the format is detected from the contents of a path.

Most operations on adapters return `Findings`, or `Written` if they write a new adapter or model.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from lora_np import models
from lora_np.adapters import peft_format
from lora_np.adapters.adapter import (
    DIFFUSERS_WEIGHTS,
    FILES,
    MLX_WEIGHTS,
    Adapter,
    Format,
    Source,
    Stored,
)
from lora_np.adapters.values import fault_of
from lora_np.checks import StrPath, shown
from lora_np.files import FileError, errors_at, replacing, target_path
from lora_np.hub import TensorInfo, directory, inside, located, open_pickle, rounded, safetensors
from lora_np.models import Base, OpenModel, peft
from lora_np.table import Shown, Table

Changes = dict[str, tuple[models.Rewrite, ...]]  # the rewrites that produced each new key
Row = TypeVar("Row", bound=tuple[Any, ...])
_STACKED = models.Rewrite("stacked", "experts stacked as in another program", "", "", "SkyRL#1852")
NOTHING = "every update is zero, so the adapter changes nothing"
CARD = "README.md"  # PEFT's model card, which is kept when an adapter is replaced


def load(adapter: Source, *, base: Base | None = None, ordered: bool = True) -> Adapter:
    """Open an adapter of any format: read and check everything except the values of its tensors.

    PEFT's adapters may be of any tuner in `lora_np.lora.TUNERS`.

    Parameters
    ----------
    adapter : path
        A directory as PEFT, mlx-lm or diffusers writes it, a GGUF file of llama.cpp, a safetensors
        file for image models (kohya's sd-scripts, ComfyUI, LyCORIS), or the name of a shipped
        adapter. An `Adapter` is returned as it is.
    base : path or mapping, optional
        The base model, or its config. It is needed for the names of modules in kohya's files. It is
        also needed for the order of the rows of q and k in a GGUF file that another program wrote
        for an architecture like Llama's.
    ordered : bool
        Whether to put the rows of a GGUF file in transformers' order. Without this step, which
        some operations do not need, no base is necessary.

    Returns
    -------
    Adapter
        A mapping from module paths to `AdapterModule`, with ``delta(name)``.

    Raises
    ------
    FileError
        If anything is missing, damaged, contradictory or not supported. Nothing is dropped
        silently, and the pickle in ``adapter_model.bin`` cannot run code.
    TypeError
        If ``adapter`` is neither a path nor an `Adapter`.

    See Also
    --------
    save : Write an adapter.
    convert : Convert an adapter to another format.

    Examples
    --------
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> model = lnp.inject(lnp.Linear.init(d_out=100, d_in=120, rng=rng), rank=8, alpha=16, rng=rng)
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> lnp.adapters.save(model, path)
    >>> {name: (module.rank, module.scale) for name, module in load(path).items()}
    {'linear': (8, 2.0)}
    """
    if isinstance(adapter, Adapter):
        return adapter
    known = base if base is None or isinstance(base, OpenModel) else models.open_base(base)
    read = opened(adapter, base=known, ordered=ordered)
    read = read if known is None else rebased(read, known)
    if read.renamed:
        what = f"{len(read.renamed)} names are read without their wrappers or prefixes in the file"
        advice = "other programs may ignore them: lora-np repair corrects them"
        warnings.warn(f"{adapter}: {what} ({', '.join(read.around)}); {advice}", stacklevel=2)
    return read


def opened(adapter: Source, *, base: OpenModel | None = None, ordered: bool = True) -> Adapter:
    """Open an adapter as `load` does, but without renaming its modules to the base's names."""
    if isinstance(adapter, Adapter):
        return adapter
    if not isinstance(adapter, (str, os.PathLike)):
        raise TypeError(
            f"adapter must be a name, a path or an Adapter, got {type(adapter).__name__}; save the"
            " model first"
        )
    kind, path = format_of(adapter)
    if kind == "peft":
        folder = directory(path)
        return interpreted(folder, peft.read(folder))
    from lora_np.adapters import image_models, runtimes

    changes: Changes = {}
    full: Mapping[str, Stored] = {}
    with errors_at(path):
        if kind == "gguf":
            modules = runtimes.read_gguf(path, base.config if base else None, ordered=ordered)
        elif kind == "mlx":
            file, changes = cleaned(safetensors.open(inside(path, MLX_WEIGHTS)), "")
            settings, names = peft.read(path), models.Dialects({})
            modules = runtimes.read_mlx(settings, file, base)
            for key in file.tensors:
                (theirs,) = names.names_in("mlx", key)
                if theirs != key:
                    other = models.Rewrite("prefix", "a name of transformers", key, theirs, "")
                    changes[key] = (*changes.get(key, ()), other)
        else:
            file, changes = cleaned(safetensors.open(path), "")
            kinds = {rewrite.kind for rewrites in changes.values() for rewrite in rewrites}
            if "doubled" in kinds and not image_models.has_scales(file):
                raise FileError(f"has PEFT's keys, but no {peft.NAME} with their scale")
            known = [module.name for module in base.spec.modules] if base else None
            modules, full = image_models.read(file, known)
    dora = Adapter(modules).has_magnitudes
    raw = peft_format.targeting({**peft.FRESH, "use_dora": dora}, modules)
    if kind == "mlx" and isinstance(name := settings.get("model"), str):
        raw["base_model_name_or_path"] = name
    pipeline = kind == "kohya" and base is None
    return _marked(Adapter(modules, full, raw, path, pipeline=pipeline), changes, "")


def interpreted(folder: Path, raw: Mapping[str, Any]) -> Adapter:
    """Read an adapter from a PEFT directory, with ``raw`` as the content of its config."""
    file, changes = tensors_of(folder)
    # import the code for other tuners only if it is needed, because it is slow to load
    if raw.get("peft_type") != "LORA":
        from lora_np.adapters.peft_tuners import read_tuner
        from lora_np.lora import tuner_of

        with errors_at(folder / peft.NAME):
            tuner = tuner_of(raw)
        if tuner:
            return _marked(read_tuner(tuner, file, raw, folder), changes, peft_format.PREFIX)
    config = peft.parse(folder / peft.NAME, raw)
    for key, content in peft.unknown(raw).items():
        what = f"{folder / peft.NAME}: {key} = {shown(content)}"
        warnings.warn(f"{what} is not a setting of PEFT, which ignores it", stacklevel=2)
    with errors_at(file.path):
        read = peft_format.interpret(file, config, folder)
        stacks = [module.parts["A"].key for module in read.values() if module.parameter]
        ours = peft_format.keyed(read) if stacks and read.raw is config.raw else {}
        for key in stacks:
            if key not in ours or ours[key].shape != file.tensors[key].shape:
                changes[key] = (*changes.get(key, ()), _STACKED)
        return _marked(read, changes, peft_format.PREFIX)


def tensors_of(folder: Path) -> tuple[safetensors.SafetensorsFile, Changes]:
    """Open a PEFT directory's tensor file with cleaned keys; also return each key's changes."""
    path = inside(folder, weights_file(folder).name)
    with errors_at(path):
        file = open_pickle(path) if path.suffix == ".bin" else safetensors.open(path)
        return cleaned(file, peft_format.PREFIX)


def cleaned(
    file: safetensors.SafetensorsFile, prefix: str
) -> tuple[safetensors.SafetensorsFile, Changes]:
    """Remove wrappers such as ``_orig_mod`` from a file's keys; also return each key's changes."""
    tensors: dict[str, TensorInfo] = {}
    changes: Changes = {}
    for key, info in file.tensors.items():
        if info.shape == (0,):
            why = "DeepSpeed ZeRO-3 leaves tensors empty that it saves without gathering them"
            raise FileError(f"{key!r} is empty: {why}; DeepSpeed's zero_to_fp32.py gathers them")
        # add PEFT's prefix, which `unwrapped` expects, to keys of formats that do not have it
        clean, rewrites = models.unwrapped(key if prefix else peft_format.PREFIX + key)
        if not prefix:
            clean = clean.removeprefix(peft_format.PREFIX)
        if ".modules_to_save." in key and clean in {*file.tensors} - {key}:
            continue  # skip a bias of modules_to_save, which PEFT saves twice if bias is "all"
        if clean in tensors:
            raise FileError(f"{key!r} and another key both become {clean!r} without wrappers")
        tensors[clean] = info
        if rewrites:
            changes[clean] = tuple(rewrites)
    return replace(file, tensors=tensors), changes


def _marked(adapter: Adapter, changes: Changes, prefix: str) -> Adapter:
    """Return the adapter with ``renamed`` set: the changes made to the keys of each module."""
    starts: Changes = {}
    for key, rewrites in changes.items():
        while key := key.rpartition(".")[0]:
            starts.setdefault(key, rewrites)
    modules = {name for name, module in adapter.items() if not module.parameter}
    renamed = {}
    for name in (*adapter, *adapter.full, *adapter.rows):
        holder = prefix + (name if name in modules else name.rpartition(".")[0])
        if holder in starts:
            renamed[name] = starts[holder]
    return replace(adapter, renamed=renamed)


def rebased(adapter: Adapter, base: OpenModel) -> Adapter:
    """Rename the adapter's modules to the base's names if only a known prefix is different."""
    names = {*adapter, *(name.rpartition(".")[0] for name in (*adapter.full, *adapter.rows))}
    new = base.counterparts(names)
    if not new:
        return adapter

    def moved(name: str) -> str:
        owner, dot, last = name.rpartition(".")
        return new.get(name) or f"{new.get(owner, owner)}{dot}{last}"

    modules = {moved(name): module for name, module in adapter.items()}
    for name, module in modules.items():
        if module.tuned:
            modules[name] = replace(module, tuned=replace(module.tuned, name=name))
    full = {moved(name): stored for name, stored in adapter.full.items()}
    rows = {moved(name): stored for name, stored in adapter.rows.items()}
    raw = dict(adapter.raw)
    if any(module.tuned for module in modules.values()):
        raw["target_modules"] = sorted(modules)
    else:
        raw = peft_format.targeting(raw, modules)
    if saved := raw.get("modules_to_save"):
        raw["modules_to_save"] = [new.get(name, name) for name in saved]
    if isinstance(tokens := raw.get("trainable_token_indices"), dict):
        raw["trainable_token_indices"] = {new.get(name, name): x for name, x in tokens.items()}
    renamed = {}
    for name in (*adapter, *adapter.full, *adapter.rows):
        changes = adapter.renamed.get(name, ())
        if (old := name if name in new else name.rpartition(".")[0]) in new:
            what = "a prefix of another model"
            changes = (*changes, models.Rewrite("prefix", what, old, new[old], ""))
        if changes:
            renamed[moved(name)] = changes
    return replace(adapter, modules=modules, full=full, rows=rows, raw=raw, renamed=renamed)


def format_of(adapter: StrPath) -> tuple[Format, Path]:
    """Detect the format of an adapter; return it with the path of its file or directory."""
    path = located(adapter)
    inner = {peft.NAME, peft_format.WEIGHTS, MLX_WEIGHTS}
    if not path.is_dir() and path.name not in inner:
        if path.suffix in FILES:
            return FILES[path.suffix], path
        if path.is_file():
            what = f"{path}: a {path.suffix or 'nameless'} file is not an adapter"
            raise FileError(f"{what}: it must be a directory, or a .safetensors or .gguf file")
    folder = path.parent if path.name in inner and path.is_file() else path
    if (folder / DIFFUSERS_WEIGHTS).is_file() and not (folder / peft.NAME).exists():
        return "kohya", folder / DIFFUSERS_WEIGHTS
    if (folder / MLX_WEIGHTS).is_file() and not (folder / peft_format.WEIGHTS).is_file():
        return "mlx", folder
    return "peft", folder


def base_of(adapter: Adapter, base: OpenModel | None) -> OpenModel | None:
    """Return ``base`` if it is on disk, else the adapter's base; None unless it is a directory."""
    if base and base.on_disk:
        return base if base.path.is_dir() else None
    path = located(adapter.base) if adapter.base else None
    # unlike Path.is_dir, isdir raises no error for a name that is too long, or a forbidden folder
    return OpenModel.at(path) if path and os.path.isdir(path) else None


def has_effect(adapter: Adapter) -> bool:
    """Return whether an adapter contains anything other than updates of zero."""
    replaced = adapter.full or adapter.rows or adapter.has_magnitudes
    faults = (fault_of(*item) for item in adapter.items())
    return bool(replaced) or any(not fault or fault.status != "zero" for fault in faults)


def without_copies(adapter: Adapter, base: OpenModel | None) -> Adapter:
    """Remove unchanged base weights, which PEFT saves next to adapted embeddings."""
    copies = adapter.copies
    if not copies or not base:
        return adapter
    named = base.naming(copies)
    full = dict(adapter.full)
    for name in copies:
        target = base.tied.get(name, named(name))
        if target in base:
            theirs = rounded(full[name].read(), base.info(target).dtype)
            if np.array_equal(base.read(target), theirs):
                del full[name]
    return replace(adapter, full=full)


def write(
    adapter: Adapter,
    path: Path,
    *,
    to: Format | None = None,
    base: OpenModel | None = None,
    dtype: str | None = None,
    portable: bool = False,
) -> tuple[Adapter, list[str]]:
    """Write an adapter, by default in the format of the path's extension, and read it back.

    Returns the adapter that was read back, and remarks on the problems that the format's own
    program, or with ``portable`` any program, would have with it.
    """
    to = to or FILES.get(path.suffix, "peft")
    with errors_at(adapter):
        if not adapter.modules and to != "peft":
            raise FileError(f"adapts no module, so there is nothing to write for {to}")
        for name in adapter if to != "kohya" else ():
            if models.is_flat(str(name)):
                why = "which has no dots between modules: give the base (--base MODEL)"
                raise FileError(f"{name!r} is kohya's name, {why}")
            if adapter.pipeline:
                why = "the name of a module in a pipeline: give the pipeline's part as the base"
                raise FileError(f"{name!r} is {why} (--base MODEL)")
        from lora_np.adapters import image_models, rules, runtimes

        if to == "peft":
            peft_format.write(adapter, path, dtype=dtype)
        elif to == "kohya":
            image_models.write(adapter, path, dtype)
        else:
            if base is None and (named := base_of(adapter, None)) and named.config:
                base = named
            writer = runtimes.write_gguf if to == "gguf" else runtimes.write_mlx
            writer(adapter, path, base or runtimes.told_base(adapter), dtype)
        read = opened(path, base=base)
        return read, rules.remarks(read, to, base, portable=portable)


def weights_file(path: Path) -> Path:
    """Return the path of an adapter's weights file."""
    if path.is_file():
        return path
    old = path / "adapter_model.bin"
    pickled = old.is_file() and not (path / peft_format.WEIGHTS).exists()
    names = {"mlx": MLX_WEIGHTS, "peft": old.name if pickled else peft_format.WEIGHTS}
    return path / names[format_of(path)[0]]


@contextmanager
def new_adapter(
    target: StrPath, *, force: bool, inputs: Iterable[Source], to: Format | None = None
) -> Iterator[tuple[Path, Path]]:
    """Yield a path at which to write the new adapter ``target``, and a temporary directory."""
    target = target_path(target)
    paths = (source.path if isinstance(source, Adapter) else source for source in inputs)
    read = [Path(path) for path in paths if path]
    by_name = FILES.get(target.suffix)
    to = to or by_name or "peft"
    ending = next((ending for ending, form in FILES.items() if form == to), "")
    if by_name != (to if ending else None):
        wanted = f"must end in {ending}" if ending else "must not have the extension of a file"
        raise ValueError(f"{target}: the name of the new adapter {wanted}")
    from tempfile import TemporaryDirectory  # imported here, because it is slow to load

    # An existing file is replaced only if it is an adapter.
    check = partial(load, target) if ending else None
    written = {peft.NAME, MLX_WEIGHTS if to == "mlx" else peft_format.WEIGHTS, CARD}
    writes, marks = written.__contains__, [peft.NAME]
    with (
        replacing(
            target, force=force, inputs=read, writes=writes, marks=marks, keeps=[CARD], check=check
        ) as stage,
        TemporaryDirectory(dir=stage.parent if ending else stage) as aside,
    ):
        yield stage, Path(aside)


@dataclass(frozen=True, repr=False)
class Findings(Shown, Generic[Row]):
    """The result of an operation: a row for each module or tensor, and notes.

    Parameters
    ----------
    title : str
        The title of the table.
    rows : tuple of named tuples
        The rows of the table, which contain plain values.
    notes : tuple of str
        Further remarks.
    headings : tuple of str
        The headings of the columns.
    """

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    headings: tuple[str, ...]

    @property
    def table(self) -> Table:
        """The rows as a table, with the headings, title and notes of the result."""
        return Table(self.headings, self.rows, title=self.title, notes=self.notes)


@dataclass(frozen=True, repr=False)
class Written(Findings[Row]):
    """The result of an operation that wrote a new adapter or model, with its path.

    Parameters
    ----------
    title : str
        The title of the table.
    rows : tuple of named tuples
        A row for each module or tensor, whose fields are the columns of the table.
    notes : tuple of str
        Remarks on anything left out, added or not copied.
    headings : tuple of str
        The headings of the columns.
    path : Path
        The new file or directory.
    """

    path: Path
