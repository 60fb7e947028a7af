"""A SLURM of one node for tests: munged, slurmctld and slurmd of Debian's packages, without systemd or cgroups."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Return why SLURM cannot be started here; empty if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no {', '.join(missing)}: Debian's slurm-wlm and munge are not installed"
    return "" if os.geteuid() == 0 else "only root starts SLURM"


@contextlib.contextmanager
def slurm_node(folder: Path) -> Iterator[None]:
    """Run a SLURM with a node of 2 cores, whose commands find it by the environment."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = platform.node().split(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, ports=_free_ports(2), folder=folder, memory=memory))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    folder.chmod(0o711)
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ |= {"SLURM_CONF": str(conf), "PATH": _path()}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    munge += [f"--socket={folder}/munge.socket"]
    commands = [["munged", "-F", "--force", *munge], ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]]
    servers: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "servers.log").open("wb") as log:
            for command in commands:
                servers.append(subprocess.Popen(command, stdout=log, stderr=log))
                time.sleep(0.5)
        _wait_until_idle(folder)
        yield
    finally:
        for server in reversed(servers):
            server.send_signal(signal.SIGTERM)
        for server in reversed(servers):
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def ask(*command: str) -> str:
    """Return what a command of SLURM prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_idle(folder: Path) -> None:
    end = time.monotonic() + 40
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.CalledProcessError):
            if ask("sinfo", "-h", "-o", "%t").strip() == "idle":
                return
        time.sleep(0.5)
    logs = "".join(path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"SLURM did not start: {logs}")
