"""Any number of threads, processes or machines writes the same bytes."""

import pytest

from lora_np import adapters
from tests.adapters.conftest import directory


def test_any_number_of_workers_writes_identical_bytes(make_adapter, make_checkpoint, tmp_path):
    base, tuned, path = (
        make_checkpoint("base"),
        make_checkpoint("tuned", seed=3),
        make_adapter("a", rank=4),
    )
    for jobs in (1, 2, 3):
        adapters.extract(base, tuned, tmp_path / f"extract{jobs}", energy=0.8, jobs=jobs)
        adapters.resize(path, tmp_path / f"resize{jobs}", total_rank=5, jobs=jobs)
        adapters.combine([path, path], tmp_path / f"combine{jobs}", method="svd", jobs=jobs)
        adapters.merge(base, path, tmp_path / f"merge{jobs}", jobs=jobs)
    for command in ("extract", "resize", "combine", "merge"):
        first = directory(tmp_path / f"{command}1")
        assert directory(tmp_path / f"{command}2") == first
        assert directory(tmp_path / f"{command}3") == first


@pytest.fixture
def commands(make_adapter, make_checkpoint, tmp_path):
    """Runs every heavy command into a folder, and returns the bytes that it finds there."""
    base, tuned, path = (
        make_checkpoint("base"),
        make_checkpoint("tuned", seed=3),
        make_adapter("a", rank=4),
    )

    def run(name):
        place = tmp_path / name
        place.mkdir()
        adapters.extract(base, tuned, place / "extract", energy=0.8, jobs=2)
        adapters.resize(path, place / "resize", total_rank=5, jobs=2)
        adapters.combine([path, path], place / "combine", jobs=2)
        adapters.merge(base, path, place / "merge", jobs=2)
        adapters.inspect(path, base=base, jobs=2)
        return {out.name: directory(out) for out in place.iterdir()}

    return run


def test_worker_processes_write_identical_bytes_too(commands):
    joblib = pytest.importorskip("joblib")
    expected = commands("threads")
    with joblib.parallel_config(backend="loky"):
        assert commands("processes") == expected


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_writes_identical_bytes_too(commands, tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    import joblib

    expected = commands("threads")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        with joblib.parallel_config("dask"):
            assert commands("dask cluster") == expected


def test_a_number_of_workers_below_one_is_refused(adapter):
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        adapters.inspect(adapter, jobs=0)
