"""Worker processes of this machine, as a script starts them."""

import os
import signal
import subprocess
import sys
import time
import types

import pytest

from vimvol.engine.cluster import ending, open_cluster
from vimvol.engine.cluster.threads import SETTINGS_HERE
from vimvol.errors import InputError

IMITATED = """
import types

import distributed

utils = types.SimpleNamespace(get_n_gpus=lambda: 1)

def LocalCUDACluster(CUDA_VISIBLE_DEVICES, **options):
    return distributed.LocalCluster(**options)
"""
"""A dask-cuda for machines without a GPU."""

START = 'with open_cluster("local", 1) as pool:\n    print(pool.slots)\n'


def run_script(folder, text):
    script = folder / "script.py"
    script.write_text(f"from vimvol.engine.cluster import open_cluster\n{text}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["local", "cuda"])
def test_what_else_keeps_processes_from_starting_is_told_as_it_is(kind, monkeypatch):
    library = types.ModuleType("dask_cuda")
    exec(IMITATED, vars(library))
    monkeypatch.setitem(sys.modules, "dask_cuda", library)
    monkeypatch.setitem(SETTINGS_HERE, "distributed.worker.preload", ["raise RuntimeError('no room on the device')\n"])
    with (
        pytest.raises(InputError, match=r"could not be started \(no room on the device\), so") as refused,
        open_cluster(kind, 1),
    ):
        pass
    assert "__main__" not in str(refused.value)


@pytest.mark.slow
def test_a_script_that_its_workers_cannot_import_is_told_what_to_do(tmp_path):
    code, out, err = run_script(tmp_path, START)
    assert (code, out) == (1, "")
    assert 'put the call below if __name__ == "__main__":' in err.splitlines()[-1]
    assert err.count("Traceback") == 1  # that of the script alone, not of the workers


@pytest.mark.slow
def test_the_same_is_told_where_processes_have_gpus(tmp_path):
    (tmp_path / "dask_cuda.py").write_text(IMITATED)
    code, out, err = run_script(tmp_path, START.replace("local", "cuda"))
    assert (code, out) == (1, "")
    assert "GPUs' worker processes could not be started" in err.splitlines()[-1]
    assert 'put the call below if __name__ == "__main__":' in err.splitlines()[-1]
    assert err.count("Traceback") == 1


@pytest.mark.slow
def test_a_script_that_guards_its_calls_has_workers(tmp_path):
    guarded = "".join(f"    {line}\n" for line in START.splitlines())
    assert run_script(tmp_path, f'if __name__ == "__main__":\n{guarded}') == (0, "1\n", "")


def stay(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_a_run_that_is_broken_off_does_not_wait_for_what_its_workers_compute(tmp_path, monkeypatch):
    """Dask alone would wait for it a while; what sleeps so long ends only if it is killed."""
    killed, kill = [], os.kill
    monkeypatch.setattr(ending.os, "kill", lambda pid, number: killed.append((pid, number)) or kill(pid, number))
    with pytest.raises(KeyError), open_cluster("local", 2) as pool:  # noqa: PT012 - it is about leaving
        for _ in range(2):
            pool.submit(stay, tmp_path)
        end = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < end, "the calls were not begun"
            time.sleep(0.05)
        pool.cancel()
        raise KeyError
    assert {(int(path.name), signal.SIGKILL) for path in tmp_path.iterdir()} == set(killed)
