"""A device that fails for good while it predicts; errors of CUDA are raised without a GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support import small_config
from vimvol.commands.plan import plan_volume
from vimvol.engine.pool import WorkersBrokenError
from vimvol.infer.device import is_device_lost
from vimvol.infer.predictor import Predictor
from vimvol.preflight import check

Accelerator = getattr(torch, "AcceleratorError", RuntimeError)
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (Accelerator(ILLEGAL), True),
        (RuntimeError(ILLEGAL), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (Accelerator("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (Accelerator("CUDA error: no kernel image is available for execution on the device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("CUDA error: of a file"), False),
    ],
)
def test_a_device_is_lost_by_what_cuda_does_not_get_over(error: Exception, lost: bool) -> None:
    assert is_device_lost(error) == lost


def test_a_device_that_failed_ends_a_run_of_one_process_at_once(
    sample: Path, tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(self: Predictor, batch: torch.Tensor, *, bfloat16: bool) -> torch.Tensor:
        calls.append(bfloat16)
        raise Accelerator(ILLEGAL)

    monkeypatch.setattr(Predictor, "_logits", fail)
    code, _, err = run("segment", f"{sample}:raw", tmp_path / "out.zarr", "--workers", 0)
    assert (code, len(calls)) == (1, 1)
    last = err.strip().splitlines()[-1]
    assert "the device failed (CUDA error: an illegal memory access was encountered), and this process" in last
    assert last.endswith("run the same command again to go on")


def test_a_sample_that_broke_the_devices_of_its_workers_is_left_to_the_run(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise WorkersBrokenError("4 worker processes ended with it, the last as its device failed")

    monkeypatch.setattr(check, "take_probes", fail)
    found = plan_volume(f"{sample}:raw", str(tmp_path / "out.zarr"), small_config())
    assert found.failure == "4 worker processes ended with it, the last as its device failed"
