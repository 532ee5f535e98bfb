"""Seconds and memory of pcamlib.metrics beside its peers: `python benchmarks/bench_metrics.py [--quick] [--n
N --d D]`.

Every row is a process of its own with the same threads and the same features (float32, drawn once): it imports, loads
both sets, runs once on 500 rows to warm up, and then measures one call: wall seconds, processor seconds of all its
threads (which say more than wall seconds where other work goes on), and the peak of its resident memory above what it
held before the call. The rate of the machine is that of a float32 product of the same depth D, measured in the same
process straight afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
K = 3  # as in pcamlib.metrics.agreement, which this process does not import
PEERS = {
    "precision, recall, density, coverage": ["pcamlib", "prdc", "torch-fidelity"],
    "FID": ["pcamlib", "torchmetrics", "torch-fidelity"],
}


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Rectified mixtures of 32 hidden factors: non-negative, with dead and correlated units, like pooled
    features."""
    mix = np.random.default_rng(0).normal(size=(32, d)).astype(np.float32)
    hidden = np.random.default_rng(seed).normal(scale=1 + 0.05 * (seed % 2), size=(n, 32)).astype(np.float32)
    return np.maximum(hidden @ mix, 0)


def task(metric: str, peer: str) -> Callable[[np.ndarray, np.ndarray], list[float]]:
    """The call to measure; a peer's library is imported when called, so each process loads its own only."""
    from pcamlib import metrics
    from pcamlib.metrics import agreement

    if peer == "pcamlib":
        if metric == "FID":
            return lambda real, fake: [metrics.frechet_distance(real=real, fake=fake)]

        def neighbours(real, fake):
            found = metrics.neighbour_metrics(real=real, fake=fake, k=agreement.K)
            return [found.precision, found.recall, found.density, found.coverage]

        return neighbours
    call = {
        "prdc": agreement.prdc,
        "torchmetrics": agreement.torchmetrics_fid,
        "torch-fidelity": agreement.fidelity_fid if metric == "FID" else agreement.fidelity_prc,
    }[peer]
    return lambda real, fake: list(call(real, fake).values())


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status: VmRSS (now) or VmHWM (peak)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def matrix_rate(d: int) -> float:
    """Best float32 GFLOP per processor second of five products (640, D) x (D, 8192)."""
    import torch

    a, b = torch.rand(640, d), torch.rand(8192, d)
    times = []
    for _ in range(6):
        start = time.process_time()
        a @ b.T
        times.append(time.process_time() - start)
    return 2 * 640 * 8192 * d / min(times[1:]) / 1e9


def child(metric: str, peer: str, folder: Path) -> None:
    run = task(metric, peer)
    real, fake = (np.load(folder / f"{name}.npy") for name in ("real", "fake"))
    with contextlib.redirect_stdout(io.StringIO()):  # prdc prints
        run(real[:500, :128].copy(), fake[:500, :128].copy())
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
        values = run(real, fake)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    row = {"seconds": seconds, "cpu": cpu, "bytes": memory("VmHWM") - before, "values": [float(v) for v in values]}
    if peer == "pcamlib":
        row["rate"] = matrix_rate(real.shape[1])
    print(json.dumps(row))


def measure(metric: str, peer: str, folder: Path, threads: int) -> dict:
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, __file__, "--child", metric, peer, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{metric} by {peer} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def compare(metric: str, n: int, d: int, peers: list[str], threads: int) -> list[dict]:
    """One table: all peers on the same features."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, which in enumerate(("real", "fake")):
            np.save(folder / f"{which}.npy", features(n, d, seed))
        print(f"\n{metric}: {n:,} against {n:,} features of {d:,} dimensions, k = {K}, {threads} threads")
        print(f"{'':16}{'seconds':>9}{'x ours':>8}{'CPU s':>9}{'x ours':>8}{'MB':>8}{'x ours':>8}  values")
        for peer in peers:
            row = measure(metric, peer, folder, threads) | {"metric": metric, "peer": peer, "n": n, "d": d}
            rows.append(row)
            slower, dearer, larger = (row[key] / max(rows[0][key], 1e-9) for key in ("seconds", "cpu", "bytes"))
            shown = " ".join(f"{v:.6g}" for v in row["values"])
            numbers = f"{row['seconds']:9.2f}{slower:8.2f}{row['cpu']:9.2f}{dearer:8.2f}"
            numbers += f"{row['bytes'] / 1e6:8.0f}{larger:8.2f}"
            print(f"{peer:16}{numbers}  {shown}", flush=True)
    if metric != "FID":
        work = 2 * (n * n / 2 + n * n / 2 + n * n) * (d + 2) / 1e9  # two symmetric passes and one between
        rate, machine = work / rows[0]["cpu"], rows[0]["rate"]
        share = f"{rate / machine:.0%} of the machine's {machine:.0f}"
        print(f"pcamlib: {work:,.0f} GFLOP at {rate:.0f} GFLOP per processor second, {share}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 features of 512 dimensions only")
    parser.add_argument("--n", type=int, help="this many features only")
    parser.add_argument("--d", type=int, default=2048, help="dimensions")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        metric, peer, folder = options.child
        return child(metric, peer, Path(folder))
    n, d = (1000, 512) if options.quick else (options.n or 10_000, options.d)
    rows = [row for metric, peers in PEERS.items() for row in compare(metric, n, d, peers, options.threads)]
    if not options.quick and not options.n:  # a whole subset of the paper against its synthetic set
        rows += compare(next(iter(PEERS)), 26_215, d, ["pcamlib"], options.threads)
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
