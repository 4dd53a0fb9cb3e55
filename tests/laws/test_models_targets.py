"""PEFT's rules on names: suffixes, expressions, layers, exclusions and patterns, held against PEFT
itself.
"""

import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from lora_np.checks import close_names
from lora_np.models import Patterns, matcher
from lora_np.models.selection import is_all_linear
from tests.drawing import examples

_PATHS = st.builds(
    ".".join,
    st.lists(
        st.sampled_from(["model", "layers", "h", "0", "1", "12", "mlp", "q_proj", "v_proj", "x"]),
        min_size=1,
        max_size=6,
    ),
)
_NAMES = st.sampled_from(
    ["q_proj", "v_proj", "mlp.q_proj", "layers.0.q_proj", "0", "1.q_proj", "model.q_proj", "proj"]
)
_EXPRESSIONS = st.sampled_from(
    [
        r".*\.q_proj",
        r".*(q|v)_proj",
        r"model\.layers\.[01]\..*",
        ".*",
        r"(?!.*mlp).*proj",
        r".*\.\d+\..*proj",
        "q_proj",
    ]
)
_LISTS = st.lists(_NAMES, min_size=1, max_size=3)


@pytest.mark.peers
@settings(max_examples=examples(1500), deadline=None)
@given(
    path=_PATHS,
    targets=_LISTS | _EXPRESSIONS,
    exclude=st.just([]) | _LISTS | _EXPRESSIONS,
    layers=st.none()
    | st.just([])
    | st.integers(0, 2)
    | st.lists(st.sampled_from([0, 1, 12]), max_size=2),
    layers_pattern=st.none() | st.sampled_from(["layers", "h", ["h", "layers"], "mlp", []]),
)
def test_the_same_modules_as_in_peft(path, targets, exclude, layers, layers_pattern):
    utils = pytest.importorskip("peft.tuners.tuners_utils")
    config = SimpleNamespace(
        target_modules=targets,
        exclude_modules=exclude,
        layers_to_transform=layers,
        layers_pattern=layers_pattern,
        target_parameters=None,
    )
    theirs = utils.check_target_module_exists(config, path)
    expected = bool(theirs) and not isinstance(theirs, utils._ExcludedModule)
    wanted = matcher(
        targets,
        exclude=exclude,
        layers=() if layers is None else layers,
        layers_pattern=layers_pattern or (),
    )
    assert wanted(path) == expected


@pytest.mark.peers
@settings(max_examples=examples(800), deadline=None)
@given(
    path=_PATHS,
    keys=st.lists(
        _NAMES | _EXPRESSIONS | _PATHS.map(lambda path: "^" + path.replace(".", r"\.")) | _PATHS,
        max_size=5,
        unique=True,
    ),
)
def test_the_same_pattern_as_in_peft(path, keys):
    other = pytest.importorskip("peft.utils.other")
    found = Patterns(dict.fromkeys(keys, 1)).key(path)
    assert (path if found is None else found) == other.get_pattern_key(keys, path)


def test_all_linear_leaves_the_choice_to_the_caller():
    assert is_all_linear("ALL-linear")
    assert not is_all_linear(["q_proj"])
    assert matcher("ALL-linear")("lm_head")


def test_a_function_sees_path_and_layer():
    wanted = matcher(lambda path, layer: path == layer, exclude=["b"])
    assert [wanted("a", "a"), wanted("a", "c"), wanted("b", "b")] == [True, False, False]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([], ValueError, "targets must name at least one module"),
        (["q", 3], TypeError, "targets must be names of modules, got 3"),
        (3, TypeError, "targets must be a list of names, a string or a function, got 3"),
        ("(", ValueError, "targets must be a regular expression, got '\\('"),
    ],
)
def test_what_is_wrong_is_named(targets, error, message):
    with pytest.raises(error, match=message):
        matcher(targets)


def test_patterns_that_match_nothing_are_found():
    patterns = Patterns({r"^model\.a": 1, "b": 2, "c": 3, r"model\..*": 4, r"^model\.z": 5})
    assert patterns.unused(["model.a", "model.b"]) == ["c", r"^model\.z"]


def test_many_names_take_linear_time():
    names = [f"model.layers.{i}.mlp.experts.{j}.up_proj" for i in range(100) for j in range(100)]
    for keys in ([f"^{name}".replace(".", r"\.") for name in names], names):
        begin = time.process_time()
        ranks = Patterns({key: place for place, key in enumerate(keys)})
        assert [ranks.get(name, None) for name in names[-2000:]] == list(range(8000, 10_000))
        assert time.process_time() - begin < 10
    with pytest.raises(ValueError, match="at most 1,000 expressions"):
        Patterns({f".*a{i}": 1 for i in range(1001)})


def test_close_names_lists_twelve_at_most():
    many = [f"layers.{i:02}.up" for i in range(40)]
    assert close_names("far", many) == f"; it has {', '.join(many[:12])} and 28 more"
    assert close_names("far", many[:12]) == f"; it has {', '.join(many[:12])}"
    assert close_names("layers.07.uq", many).startswith("; close names: layers.07.up")
