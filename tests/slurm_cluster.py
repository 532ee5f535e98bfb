"""A real SLURM on this machine for the length of a test: munged, slurmctld and two slurmd in a folder of their own.

    python tests/slurm_cluster.py COMMAND [ARGUMENT ...]

runs the command with SLURM_CONF set (sbatch, squeue, scancel find the cluster by it) and stops the cluster afterwards.
Debian: apt install slurm-wlm munge. Loopback only, free ports, no cgroups, no accounting database, nothing installed as
a service and nothing left behind. The two nodes, n1 and n2, share this machine; each claims one processor, more memory
than it has and one GPU that does not exist, so that requests meant for a real cluster are granted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "setpriv")
NODES = ("n1", "n2")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
CommunicationParameters=NoAddrCache
ReturnToService=2
KillWait=5
MinJobAge=3600
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=100000 Gres=gpu:1"


def missing() -> list[str]:
    """Programs that the cluster needs and this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name, path=search_path())]


def search_path() -> str:
    # Debian keeps the daemons where only root looks
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start the cluster, yield the environment that reaches it, stop it. RuntimeError with the logs if it does not
    start."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    path = os.pathsep.join([str(folder), search_path()])
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    daemons: list[subprocess.Popen] = []

    def start(*command: str) -> None:
        with open(folder / f"{command[0]}-{len(daemons)}.out", "w") as output:
            # a test that is killed takes its cluster along
            command = ("setpriv", "--pdeathsig", "TERM", *command)
            options = {"cwd": folder, "stdout": output, "stderr": output, "stdin": subprocess.DEVNULL}
            daemons.append(subprocess.Popen(command, env=environment, **options))

    def ask(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        return done.stdout

    def wait(what: str, holds) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            if time.monotonic() > deadline or any(d.poll() is not None for d in daemons):
                logs = [f"{p.name}:\n{p.read_text()[-1500:]}" for p in sorted(folder.glob("*.[lo][ou]*"))]
                raise RuntimeError("\n".join([f"{what} did not start", *logs]))
            time.sleep(0.1)

    try:
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        host, (controller, *ports) = socket.gethostname(), free_ports(1 + len(NODES))
        nodes = "\n".join(NODE.format(name=n, host=host, port=p) for n, p in zip(NODES, ports))
        user = ask("id", "-un").strip()
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(host=host, controller=controller, user=user, folder=folder, nodes=nodes)
        )
        # a device that is there, in place of one that is not: SLURM counts it and numbers CUDA_VISIBLE_DEVICES by it
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        # snakemake-executor-plugin-slurm-jobstep 0.6 starts srun without any SLURM_ variable of the user's, this one
        # too
        srun = folder / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        # a socket in a folder below /tmp is refused without --force, and its clients need no more than the path
        start(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munge.seed",
        )
        wait("munged", (folder / "munge.socket").exists)
        start("slurmctld", "-D")
        wait("slurmctld", lambda: "UP" in ask("scontrol", "ping"))
        for name in NODES:
            start("slurmd", "-D", "-N", name)
        wait("slurmd", lambda: ask("sinfo", "--noheader", "--format=%T").split() == ["idle"])
        yield environment
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            ask("scancel", "--full", f"--user={os.getuid()}")
            deadline = time.monotonic() + 20
            while ask("squeue", "--noheader") and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if missing():
        sys.exit(f"missing: {', '.join(missing())} (Debian: apt install slurm-wlm munge)")
    with cluster() as environment:
        sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)
