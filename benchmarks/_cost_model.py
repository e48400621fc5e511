"""What a run costs on many devices: a model of one epoch, printed as the table of docs/scaling.md.

    python -m benchmarks._cost_model [--tflops 250] [--link-gb 25] ...

An epoch of n clips with global batch B on N workers takes n / B steps of
    step = (B / N) x flops / speed  +  2 (N - 1) / N x gradient bytes / link  +  fixed,
the first term being compute, the second a ring all-reduce that nothing hides (pessimistic: DDP
overlaps it with backward), the third what a step costs at any size. Flops are counted by torch on
the real model; speed, link and fixed are assumptions, given on the command line.
"""

import argparse
import sys

import torch

from benchmarks.attack_step import _clips, _model, count_flops

NTU60_XSUB_TRAIN = 40_091  # clips of the official cross-subject training side
WORKERS = (1, 2, 4, 8, 16, 32, 64)


def step_seconds(
    clips: float, flops: float, speed: float, workers: int, grad_bytes: float, link: float,
    fixed: float,
) -> float:  # fmt: skip
    """Seconds of one step with `clips` in the global batch; flops are those of one clip."""
    compute = clips / workers * flops / speed
    reduce = 2 * (workers - 1) / workers * grad_bytes / link
    return compute + reduce + fixed


def main(argv: list[str]) -> int:
    """Count, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._cost_model")
    parser.add_argument("--steps", type=int, default=10, help="PGD steps of training")
    parser.add_argument("--batch", type=int, default=0, help="global batch; 0 = 16 clips a worker")
    parser.add_argument("--clips", type=int, default=NTU60_XSUB_TRAIN)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--tflops", type=float, default=150.0, help="sustained, one device")
    parser.add_argument("--link-gb", type=float, default=25.0, help="GB/s between devices")
    parser.add_argument("--fixed-ms", type=float, default=10.0, help="per step, at any size")
    parser.add_argument("--fusion", default="concat")
    options = parser.parse_args(argv)
    flops, weights = count(options.steps, options.fusion)
    print(f"{flops / 1e12:.3f} TFLOP a clip and PGD-{options.steps} step, {weights:,} parameters")
    print("| GPUs | global batch | step (s) | clips/s | epoch (min) | run (h) | efficiency |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    single = 0.0
    for workers in WORKERS:
        batch = options.batch or 16 * workers
        seconds = step_seconds(
            batch, flops, options.tflops * 1e12, workers, 4.0 * weights,
            options.link_gb * 1e9, options.fixed_ms / 1e3,
        )  # fmt: skip
        rate = batch / seconds
        single = single or rate
        epoch = options.clips / rate
        print(
            f"| {workers} | {batch} | {seconds:.3f} | {rate:.0f} | {epoch / 60:.1f} | "
            f"{epoch * options.epochs / 3600:.1f} | {rate / single / workers:.0%} |"
        )
    return 0


def count(steps: int, fusion: str) -> tuple[float, int]:
    """(flops of one clip's part in a PGD training step, parameters) of R(2+1)D-18 + HCN."""
    options = argparse.Namespace(gpu=True, toy=False, fusion=fusion, batch=1)
    model = _model(options)
    model.eval()  # one clip has no batch statistics
    flops = count_flops(model, _clips(options), steps)
    return float(flops), sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(main(sys.argv[1:]))
