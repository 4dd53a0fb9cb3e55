"""Repair an adapter: rename its modules as in its base, so that programs find them."""

from __future__ import annotations

from difflib import get_close_matches
from math import hypot
from pathlib import Path
from typing import NamedTuple

from lora_np.adapters import formats, peft_format
from lora_np.adapters.adapter import Adapter, AdapterModule
from lora_np.adapters.layouts import laid_out
from lora_np.adapters.spectra import directions, norm
from lora_np.checks import StrPath
from lora_np.files import FileError, write_json
from lora_np.hub import directory, safetensors
from lora_np.lora import selecting, tuner_of
from lora_np.models import (
    Base,
    ModelSpec,
    OpenModel,
    Patterns,
    holders,
    is_all_linear,
    open_base,
    peft,
    targeted,
)


class RepairedModule(NamedTuple):
    """A repaired module, with its name and the norm of its update in both files.

    Parameters
    ----------
    name : str
        The name in the new file.
    before : str
        The name in the old file, without wrappers; several names if modules were joined.
    rank : int
        The rank of the update.
    norm_before, norm : float or None
        The Frobenius norm of the update in the old and the new file; None if another tuner than
        LoRA trained it.
    """

    name: str
    before: str
    rank: int
    norm_before: float | None
    norm: float | None


def repair(
    adapter: StrPath, out: StrPath, *, base: Base, force: bool = False
) -> formats.Written[RepairedModule]:
    """Rewrite an adapter with the module names of its base, and matching targets and patterns.

    Parameters
    ----------
    adapter : path
        A directory of PEFT or mlx-lm, or a file of another format that `load` reads.
    out : path
        The new adapter, of the same format.
    base : path or mapping
        The base model, or its config.
    force : bool
        Whether to replace an existing adapter at ``out``.

    Returns
    -------
    Written
        The names of each module and the norms of its update; the notes list the changes.

    Raises
    ------
    FileError
        If the adapter is damaged (tensors that DeepSpeed ZeRO-3 left empty are named), or its
        meaning is uncertain: a name that the base does not have, or another shape or rank.
    ValueError
        If the target exists, or the base is unknown.

    See Also
    --------
    check : Find the problems of an adapter.

    Notes
    -----
    Wrappers such as ``_orig_mod.`` are removed from names, and the base's prefix is added. Tensors
    are copied, except that separate updates of q, k and v are joined if the base fuses these
    projections, and split if it does not. If a target matches a module that LoRA cannot adapt, or
    misses an adapted one, the targets become the modules' paths. A pattern that matches no module
    is removed; PEFT did not apply it in training either.

    Examples
    --------
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> from lora_np.hub import safetensors
    >>> folder = Path(tempfile.mkdtemp())
    >>> module = AdapterModule.of(A=np.ones((1, 64)), B=np.ones((64, 1)), alpha=1.0)
    >>> name = "model.layers.0.self_attn.q_proj"
    >>> lnp.adapters.save(Adapter({name: module}), folder / "adapter")
    >>> path = folder / "adapter" / "adapter_model.safetensors"
    >>> file = safetensors.open(path)
    >>> safetensors.save({f"_orig_mod.{key}": file.read(key) for key in file.tensors}, path)
    >>> repaired = repair(folder / "adapter", folder / "new", base={"model_type": "llama",
    ...     "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1})
    >>> repaired.rows[0].name, round(repaired.rows[0].norm, 6), repaired.notes[1]
    ('model.layers.0.self_attn.q_proj', 64.0, "names rewritten: 1 (torch.compile's _orig_mod.)")
    """
    known = open_base(base)
    form, path = formats.format_of(adapter)
    before, notes = (
        _read_peft(directory(path), known.spec)
        if form == "peft"
        else (formats.opened(adapter, base=known), [])
    )
    after = formats.rebased(before, known)
    old = dict(zip(after, before, strict=True))
    after, moved = laid_out(after, known)
    names = {name: ", ".join(old[part] for part in moved.get(name, [name])) for name in after}
    for name, module in after.items():
        _check(f"{adapter}: {names[name]!r}", name, module, known)
    kinds = {change.kind for changes in after.renamed.values() for change in changes}
    if moved:
        notes.append(
            f"{len(before)} modules of the adapter became {len(after)} of {known.spec.name}"
        )
    with formats.new_adapter(out, force=force, inputs=[adapter], to=form) as (stage, _):
        if form == "peft" and not moved and "stacked" not in kinds:
            _write_peft(directory(path), after, stage)
            written = formats.opened(stage, base=known)
        else:
            written, remarks = formats.write(after, stage, to=form, base=known)
            notes += remarks
        if written.renamed or written.keys() != after.keys():
            raise FileError(f"{adapter}: its modules cannot be written under the base's names")
        records = tuple(
            RepairedModule(
                name,
                names[name],
                module.rank,
                *(_norm(f"{adapter}: {name!r}", x) for x in (module, written[name])),
            )
            for name, module in after.items()
        )
    counts = [sum(stored.size for stored in state.stored) for state in (before, written)]
    totals = [
        hypot(*(norm or 0.0 for norm in norms))
        for norms in zip(*(row[3:] for row in records), strict=True)
    ]
    summary = f"{len(records)} modules; parameters {counts[0]:,} before, {counts[1]:,} now"
    summary += f"; norm of all updates {totals[0]:.4g} before, {totals[1]:.4g} now"
    rewritten = f"names rewritten: {len(after.renamed)} ({', '.join(after.around)})"
    notes = [summary, *([rewritten] if after.around else []), *notes]
    notes += ["nothing had to be changed"] if len(notes) == 1 else []
    headings = ("module", "name before", "rank", "norm before", "norm")
    return formats.Written(
        f"{adapter} for {known.spec.name}", records, tuple(notes), headings, Path(out)
    )


def _read_peft(folder: Path, spec: ModelSpec) -> tuple[Adapter, list[str]]:
    """Read a PEFT directory, correct its config to match the tensors, and list the corrections."""
    raw = peft.read(folder)
    file, _ = formats.tensors_of(folder)
    tuner = tuner_of(raw)
    config = peft.parse(folder / peft.NAME, selecting(raw) if tuner else raw)
    prefix = f".{tuner.prefix if tuner else 'lora_'}"
    factors = {
        key.partition(prefix)[0]: x.shape for key, x in file.tensors.items() if prefix in key
    }
    paths = {holder.removeprefix(peft_format.PREFIX): shape for holder, shape in factors.items()}
    stacks = {name for name, shape in paths.items() if peft_format.is_stack(name, shape)}
    adapted = {name.split(".base_layer")[0] for name in paths.keys() - stacks}
    modules = sorted(
        name for name in adapted if config.targets(name) or not config.parameters_of(name)
    )
    parameters = {name for owner in adapted for name in config.parameters_of(owner)}
    names = {*modules, *parameters, *stacks}
    notes = []
    for what in ("rank_pattern", "alpha_pattern"):
        if unused := Patterns(raw.get(what) or {}, what).unused(names):
            raw[what] = {key: x for key, x in raw[what].items() if key not in unused}
            notes.append(f"removed from {what}, since no module matches: {', '.join(unused)}")
    unable = [] if spec.assumed else targeted(spec, config.targets)[1]
    missed = [name for name in modules if not config.targets(name)]
    all_linear = not raw.get("target_modules") or is_all_linear(raw["target_modules"])
    if missed or (unable and not all_linear):
        limits = ("layers_to_transform", "layers_pattern", "exclude_modules")
        raw = {key: x for key, x in raw.items() if key not in limits}
        raw["target_modules"] = modules
        why = f"missed {missed[0]!r}" if missed else f"matched {unable[0]!r}"
        notes.append(f"target_modules are whole paths now, because they {why}")
    return formats.interpreted(folder, raw), notes


def _check(place: str, name: str, module: AdapterModule, base: OpenModel) -> None:
    """Raise an error if the base lacks the module, or has it with another shape."""
    theirs = base.modules.get(name.removesuffix(".weight"))
    if theirs is None and name not in base.names:
        near = get_close_matches(name, sorted(base.names), n=2, cutoff=0)
        known = " and ".join(map(repr, near))
        raise FileError(f"{place} is not a module of {base.spec.name}; the nearest are {known}")
    if theirs is None or len(theirs.shape) < 2 or module.kernel or module.tuned:
        return
    if module.shape[-2:] != theirs.sides[1:]:
        ours, wanted = (" x ".join(map(str, s)) for s in (module.shape[-2:], theirs.sides[1:]))
        raise FileError(f"{place} is {ours}, but {wanted} in {base.spec.name}: not the same base")


def _write_peft(folder: Path, adapter: Adapter, out: Path) -> None:
    """Copy a PEFT directory's tensors, renaming them as in ``adapter``, and write its config."""
    file, _ = formats.tensors_of(folder)
    new = {
        change.pattern: change.to
        for changes in adapter.renamed.values()
        for change in changes
        if change.kind == "prefix"
    }
    sources: dict[str, str] = {}
    for key in file.tensors:
        name = key.removeprefix(peft_format.PREFIX)
        holder = next((holder for holder in holders(name) if holder in new), "")
        own = name == key  # all modules share a tensor whose key has no prefix
        moved = new.get(holder, "") + name[len(holder) :]
        sources[key if own else peft_format.PREFIX + moved] = key
    infos = {key: file.tensors[source] for key, source in sources.items()}
    safetensors.write(
        infos,
        lambda key: file.read(sources[key]),
        out / peft_format.WEIGHTS,
        metadata=file.metadata,
    )
    write_json(out / peft.NAME, adapter.raw if tuner_of(adapter.raw) else adapter.config)


def _norm(place: str, module: AdapterModule) -> float | None:
    """Compute the norm of ``scale * B A``; None if another tuner than LoRA trained the update."""
    if module.tuned:
        return None
    return abs(module.scale) * norm(directions(place, *module.factors()).s)
