"""Names that something was put around: every rewrite of the list, alone and with each other."""

from itertools import permutations

import pytest

from lora_np.models.dialects import renamed, rewrites, unwrapped

CLEAN = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
INSIDE = {"_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module."}


def wrap(key, what):
    """The key as it is where this was put around it."""
    if what == "default":
        return key.replace(".weight", ".default.weight")
    if what == "missing":
        return key.removeprefix("base_model.model.")
    return what + key


@pytest.mark.parametrize("what", sorted({*INSIDE, "base_model.model.", "default", "missing"}))
def test_each_wrapper_is_removed_and_named(what):
    key, found = unwrapped(wrap(CLEAN, what))
    assert key == CLEAN
    assert len(found) == 1
    assert unwrapped(CLEAN) == (CLEAN, [])


@pytest.mark.parametrize("two", list(permutations(sorted({*INSIDE, "default"}), 2)), ids="".join)
def test_two_wrappers_in_either_order(two):
    key, found = unwrapped(wrap(wrap(CLEAN, two[0]), two[1]))
    assert key == CLEAN
    assert len(found) == 2


@pytest.mark.parametrize("wrapper", sorted(INSIDE - {"module."}))
def test_a_layer_may_be_wrapped(wrapper):
    assert unwrapped(CLEAN.replace("self_attn", f"{wrapper}self_attn"))[0] == CLEAN


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.submodule.q.lora_A.weight",
        "base_model.model.my_orig_mod.q.lora_A.weight",
        "base_model.model.default.q.lora_A.weight",
        "base_model.model.layer.module.q.lora_B.weight",
        "base_model.vera_A",
    ],
)
def test_what_only_looks_like_a_wrapper_stays(key):
    assert unwrapped(key) == (key, [])


def test_every_rewrite_and_prefix_has_a_source_and_something_to_do():
    assert all(each.source and each.what and each.kind for each in rewrites())
    assert {each.kind for each in rewrites()} == {"wrapped", "doubled", "unprefixed", "named"}


TEXT = ["model.layers.0.q_proj", "lm_head"]
BARE = ["layers.0.q_proj"]
VISION = ["model.language_model.layers.0.q_proj", "model.visual.blocks.0.attn.qkv", "lm_head"]
OLDER = ["language_model.model.layers.0.q_proj"]


@pytest.mark.parametrize(
    "one", [TEXT, BARE, VISION, OLDER], ids=["text", "bare", "vision", "older"]
)
@pytest.mark.parametrize(
    "other", [TEXT, BARE, VISION, OLDER], ids=["text", "bare", "vision", "older"]
)
def test_a_layer_of_one_model_is_found_in_the_other_and_its_other_parts_are_not(one, other):
    wanted = {} if one is other else {one[0]: other[0]}
    assert renamed(one, other) == wanted


def test_two_counterparts_are_none():
    assert renamed(["layers.0.q"], ["model.layers.0.q", "thinker.model.layers.0.q"]) == {}
    assert renamed(["layers.7.q"], ["model.layers.0.q"]) == {}
