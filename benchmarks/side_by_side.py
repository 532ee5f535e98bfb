"""What the training benchmarks share: every peer in a process of its own with the same threads, rows, and a profiler's
summary."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
Peer = Callable[[argparse.Namespace], dict[str, Any]]


def options(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options that all of them take, --quick, --threads, --data, --profile, --seconds and --json."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="as little as still runs everything")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", default="phantom", help='folder of PCam files, or "phantom"')
    parser.add_argument("--profile", default=defaults.get("profile", "slice"))
    parser.add_argument("--seconds", type=float, default=10, help="to time each part")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def run(
    parser: argparse.ArgumentParser, peers: dict[str, Peer], report: Callable[[dict[str, dict], Any], None]
) -> None:
    """Measure every peer in a child process, then `report` their rows; in the child, print one row as JSON."""
    args = parser.parse_args()
    if args.quick:
        args.seconds = min(args.seconds, 1)
    if args.child:
        import torch

        torch.set_num_threads(args.threads)
        print(json.dumps(peers[args.child](args)))
        return
    environment = os.environ | {f"{name}_NUM_THREADS": str(args.threads) for name in ("OMP", "MKL", "OPENBLAS")}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    rows = {}
    for name in peers:
        command = [sys.executable, *sys.argv, "--child", name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
        rows[name] = json.loads(done.stdout.splitlines()[-1])
    report(rows, args)
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "child")}
        args.json.write_text(json.dumps({"options": settings, "rows": rows}, indent=1, default=str) + "\n")


def patches(data: str, n: int) -> Any:
    """The first n train patches of `data` and their labels, and the folder they lie in (the phantom is made for it)."""
    from pcamlib import data as pcam
    from pcamlib.data import phantom

    folder = Path(data)
    if data == "phantom":
        folder = Path(tempfile.gettempdir()) / f"pcamlib-bench-phantom-{n}"
        phantom.write(folder, train=n, valid=64, test=64, seed=0)
    return pcam.load(folder, "train", np.arange(min(n, len(pcam.labels(folder, "train"))))), folder


def where(call: Callable[[], object], rows: int = 4) -> str:
    """The operators that take most of one call's time, by torch.profiler: "convolution_backward 43 %, …"."""
    import torch

    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    events = sorted(profile.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events) or 1
    return ", ".join(f"{e.key.removeprefix('aten::')} {e.self_cpu_time_total / total:.0%}" for e in events[:rows])


def rates() -> dict[str, float]:
    """GFLOP/s of a square matrix product on this device, float32 and bfloat16."""
    import timing
    import torch

    return {
        "fp32": timing.matrix_rate(torch.float32) / 1e9,
        "bf16": timing.matrix_rate(torch.bfloat16, 512) / 1e9,
    }


def shares(flops: float, seconds: float, rate: dict[str, float]) -> str:
    """How far a rate is from those of `rates`."""
    gflops = flops / seconds / 1e9
    each = ", ".join(f"{gflops / value:.0%} of {value:,.1f} ({name})" for name, value in rate.items())
    return f"{gflops:,.1f} GFLOP/s: {each}"
