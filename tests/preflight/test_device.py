"""Which device predicts, on machines that are imitated: none of these tests needs a GPU."""

from collections.abc import Callable
from pathlib import Path

import distributed
import pytest
import torch

from tests.support import small_config
from vimvol.config.cluster import AddressCluster, JobPool, JobsCluster, LocalCluster, read_cluster
from vimvol.engine.turns import run_call
from vimvol.errors import InputError
from vimvol.infer.device import faster_text, slow_text
from vimvol.preflight.device import quicker_text, settle_device
from vimvol.preflight.prepare import prepare
from vimvol.stages import predict

LOCAL, CUDA, THERE = LocalCluster(), read_cluster("cuda"), AddressCluster(address="tcp://node:8786")

CORES = JobsCluster(kind="slurm", cpu=JobPool(jobs=2))
MIXED = JobsCluster(kind="slurm", cpu=JobPool(jobs=2), gpu=JobPool(jobs=1))


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize(
    ("gpus", "wanted", "cluster", "workers", "device", "told"),
    [
        (0, "auto", LOCAL, 4, "auto", 0),
        (0, "auto", THERE, None, "auto", 0),
        (0, "auto", CUDA, None, "cuda", 0),
        (0, "auto", MIXED, None, "cuda", 0),
        (0, "auto", CORES, None, "auto", 0),
        (1, "auto", LOCAL, 4, "auto", 1),
        (1, "auto", LOCAL, 1, "cuda", 0),
        (1, "auto", LOCAL, 0, "cuda", 0),
        (1, "cpu", LOCAL, 4, "cpu", 0),
        (2, "cuda:1", LOCAL, 1, "cuda:1", 0),
        (2, "cpu", CUDA, 1, "cpu", 0),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_auto_is_settled_before_the_run(wanted, cluster, workers, device, told) -> None:
    lines: list[str] = []
    config = small_config(predict__device=wanted, run__workers=workers)
    assert settle_device(config, cluster, lines.append).predict.device == device
    assert len(lines) == told


@pytest.mark.parametrize("gpus", [1], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_several_workers_do_not_share_a_gpu() -> None:
    with pytest.raises(InputError, match="with 3 workers would load 3 networks onto one GPU; give --cluster cuda"):
        settle_device(small_config(predict__device="cuda", run__workers=3), LOCAL, print)


def test_the_number_of_a_gpu_is_refused_where_every_worker_counts_from_its_own(
    sample: Path, tmp_path: Path, run: Callable
) -> None:
    wanted = "--set", "predict.device=cuda:1"
    for command in ("segment", "plan"):
        code, _, err = run(command, f"{sample}:raw", tmp_path / "out.zarr", "--cluster", "cuda", *wanted)
        line = err.strip().splitlines()[-1]
        assert (code, line.count("predict.device = 'cuda:1' would be another GPU, or none, in each worker")) == (2, 1)
        assert line.endswith("; give cuda, and devices: [1] in a file of kind cuda for that GPU alone")
    jobs = JobsCluster.model_validate({"kind": "slurm", "gpu": {"jobs": 2}})
    with pytest.raises(InputError, match=r"in each worker of cluster slurm; give cuda$"):
        settle_device(small_config(predict__device="cuda:0"), jobs, print)
    for device, cluster in (("cuda", jobs), ("cuda:1", THERE)):
        assert settle_device(small_config(predict__device=device), cluster, print).predict.device == device


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match=r"predict\.device = 'cuda' is not there on this machine"):
        settle_device(small_config(predict__device="cuda"), LOCAL, print)


@pytest.mark.parametrize("gpus", [1], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_the_gpu_stands_in_the_key_of_the_prediction(sample: Path, tmp_path: Path) -> None:
    keys = []
    for workers in (1, 2):
        config = settle_device(small_config(predict__device="auto", run__workers=workers), LOCAL, lambda _: None)
        keys.append(prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), config).keys["predict"])
    assert keys[0] != keys[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_several_workers_of_this_machine_see_no_gpu(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    from vimvol.engine.cluster import open_cluster

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with open_cluster("local", workers) as pool:
        pool.submit(_visible)
        assert pool.next_done()[1] == ("0" if workers == 1 else "")


def _visible() -> str | None:
    import os

    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("resources", [{"GPU": 1}, None])
def test_a_worker_that_offers_a_gpu_does_not_predict_on_a_core(sample: Path, tmp_path: Path, resources) -> None:
    job = prepare(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config(predict__device="auto"))
    asked = job.network.checkpoint, job.network.digest, job.config.predict
    predict._predictor.cache_clear()
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, resources=resources, dashboard_address=None, protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        kind = "GPU" if resources else None
        done = client.submit(
            run_call, "topic", kind, 1.0, False, predict._predictor, *asked, pure=False, resources=resources
        )
        if resources is None:
            assert isinstance(done.result(), predict.Predictor)
        else:
            with pytest.raises(InputError, match="a worker offers a GPU and PyTorch finds none there"):
                done.result()


def test_what_imitates_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, slow in (({"avx2": True, "avx512_bf16": False}, True), ({"avx512_bf16": True}, False)):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda able=able: able, raising=False)
        assert slow_text("bfloat16", torch.device("cpu")).startswith("slow: ") == slow
        lines: list[str] = []
        config = small_config(predict__precision="bfloat16", predict__device="cpu")
        settle_device(config, LOCAL, lines.append)
        settle_device(config, THERE, lines.append)
        assert len(lines) == slow
        assert not slow_text("float32", torch.device("cpu"))
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert bool(slow_text("bfloat16", torch.device("cuda"))) != able
        assert bool(faster_text("float32", torch.device("cuda"))) == able


def test_what_would_be_faster_is_known_of_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(predict__device="cpu")
    for able in (True, False):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda able=able: {"avx512_bf16": able}, raising=False)
        assert bool(quicker_text(config, LOCAL)) == able
        assert not quicker_text(config, THERE)
        assert not quicker_text(small_config(predict__precision="bfloat16"), LOCAL)
