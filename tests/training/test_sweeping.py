"""Sweeps: every combination, the same for any number of workers."""

import json

import numpy as np
import pytest

import lora_np as lnp
from lora_np.training import Problem, Sweep, optimum, sweep


def problem(validation=True):
    rng = np.random.default_rng(0)
    x, D = rng.normal(size=(90, 6)), rng.normal(size=(5, 6))
    y = x @ D.T + 0.1 * rng.normal(size=(90, 5))
    held_out = (x[60:], y[60:]) if validation else None
    return Problem(lnp.Linear(rng.normal(size=(5, 6))), x[:60], y[:60], held_out)


SETTINGS = {
    "ranks": [1, 2],
    "lr": [0.01, 0.05],
    "rngs": [0, 1],
    "steps": 30,
    "progress": False,
}


def test_every_combination_once_in_order():
    result = sweep(problem(), **SETTINGS, variants=["lora", "dora"], alphas=[1, 2, 2.0])
    keys = [tuple(r[k] for k in ("variant", "rank", "alpha", "lr", "rng")) for r in result.records]
    assert len(keys) == len(set(keys)) == 2 * 2 * 2 * 4  # 2 and 2.0 are the same
    assert [k[0] for k in keys] == sorted([k[0] for k in keys], reverse=True)
    assert keys[0] == ("lora", 1, 1.0, 0.01, 0)


@pytest.mark.parametrize("optimizer", [None, lnp.Adam])
def test_records_are_what_fit_gives(optimizer):
    """By default the rate decays from each of ``lr``; that of a given optimizer stays."""
    p = problem()
    rate = lnp.cosine_schedule(0.03, steps=30) if optimizer is None else 0.03
    chosen = {} if optimizer is None else {"optimizer": optimizer}
    record = sweep(
        p,
        ranks=[2],
        alphas=[4],
        lr=[0.03],
        rngs=[5],
        steps=30,
        batch_size=20,
        progress=False,
        **chosen,
    ).records[0]
    rng = np.random.default_rng(5)
    model = lnp.inject(p.model, rank=2, alpha=4, rng=rng)
    fitted = lnp.freeze(
        lnp.fit(
            model,
            p.x,
            p.y,
            optimizer=lnp.Adam(lr=rate),
            steps=30,
            batch_size=20,
            rng=rng,
            progress=False,
        ).model
    )
    assert record["loss"] == pytest.approx(np.mean((fitted(p.x) - p.y) ** 2), rel=1e-9)
    assert record["validation_loss"] == pytest.approx(
        np.mean((fitted(p.validation[0]) - p.validation[1]) ** 2), rel=1e-9
    )
    assert record["optimum"] == pytest.approx(optimum(model, p.x, p.y))
    assert record["trainable"] == 2 * (5 + 6)


def test_the_default_of_sweep_is_that_of_fit():
    p = problem()
    record = sweep(p, ranks=[2], rngs=[3], steps=20, progress=False).records[0]
    rng = np.random.default_rng(3)
    model = lnp.inject(p.model, rank=2, rng=rng)
    fitted = lnp.freeze(lnp.fit(model, p.x, p.y, steps=20, rng=rng, progress=False).model)
    assert record["loss"] == pytest.approx(np.mean((fitted(p.x) - p.y) ** 2), rel=1e-9)


def test_the_same_for_any_number_of_workers():
    settings = SETTINGS | {"variants": ["lora", "lora+", "pissa"], "batch_size": 16}
    one, two = (sweep(problem(), **settings, jobs=jobs) for jobs in (1, 2))
    assert one.records == two.records


def stop_at_the_fifth(prediction, target):
    stop_at_the_fifth.calls += 1
    if stop_at_the_fifth.calls == 5:
        raise KeyboardInterrupt
    return lnp.mean_squared_error(prediction, target)


def test_an_interrupted_run_is_no_result():
    stop_at_the_fifth.calls = 0
    p = problem()
    p = Problem(p.model, p.x, p.y, loss=stop_at_the_fifth)
    settings = {"ranks": [1], "lr": [0.01], "steps": 20, "jobs": 1}
    with pytest.raises(KeyboardInterrupt):
        sweep(p, **settings, progress=False)


def test_a_run_that_diverges_is_a_record_too():
    result = sweep(
        problem(),
        ranks=[1],
        alphas=[1],
        lr=[0.1, 1e9],
        optimizer=lnp.SGD,
        steps=300,
        progress=False,
    )
    good, bad = result.records
    assert good["diverged_at"] is None
    assert bad["loss"] is None
    assert 0 < bad["diverged_at"] < 300
    assert [r["lr"] for r in result.best()] == [0.1]
    json.loads(json.dumps(result.records))


def test_a_loss_that_is_no_number_is_not_the_best():
    runs = [{"variant": "lora", "rank": 1, "alpha": 1, "lr": lr, "loss": loss}
            for lr, loss in [(9.0, np.nan), (9.0, 1.0), (0.1, 2.0), (0.1, 3.0)]]  # fmt: skip
    assert {run["lr"] for run in Sweep(runs).best()} == {0.1}


def test_table_json_and_the_best():
    result = sweep(problem(), **SETTINGS, variants=["lora", "lora-fa"])
    assert result.table.records == json.loads(json.dumps(result.records)) == result.records
    assert "variant" in repr(result)
    assert "<table" in result._repr_html_()
    best = {(r["rank"], r["lr"]): [] for r in result.records}
    for r in result.records:
        if r["variant"] == "lora":
            best[r["rank"], r["lr"]].append(r["loss"])
    for rank in (1, 2):
        chosen = [r["loss"] for r in result.best() if (r["variant"], r["rank"]) == ("lora", rank)]
        assert np.median(chosen) == min(np.median(best[rank, lr]) for lr in (0.01, 0.05))


def test_classification_has_no_optimum():
    rng = np.random.default_rng(0)
    p = Problem(
        lnp.Linear(rng.normal(size=(3, 4))),
        rng.normal(size=(30, 4)),
        rng.integers(0, 3, 30),
        loss=lnp.cross_entropy,
    )
    assert sweep(p, ranks=[1], steps=3, progress=False).records[0]["optimum"] is None


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"ranks": []}, ValueError, "ranks must name at least one value, got none"),
    ({"ranks": [0]}, ValueError, "rank must be at least 1, got 0"),
    ({"ranks": [1.5]}, TypeError, "rank must be a whole number, got 1.5"),
    ({"alphas": [-1]}, ValueError, "alpha must be above 0, got -1"),
    ({"lr": [0]}, ValueError, "learning rate must be above 0, got 0"),
    ({"variants": ["loraa"]}, ValueError, r"variant must be one of .*got 'loraa' \(did you mean 'lora'\?\)"),
    ({"variants": ["lora", "loftq"]}, ValueError, "variant must be one of .*, got 'loftq'"),
    ({"rngs": [-1]}, ValueError, "rng must be at least 0, got -1"),
    ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
])  # fmt: skip
def test_bad_settings(change, error, match):
    with pytest.raises(error, match=match):
        sweep(problem(), **SETTINGS | change)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_same_on_a_dask_cluster(tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    import joblib

    expected = sweep(problem(), **SETTINGS)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        with joblib.parallel_config("dask"):
            assert sweep(problem(), **SETTINGS).records == expected.records
