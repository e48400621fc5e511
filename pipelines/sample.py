"""Stage before all others: lays the bundled synthetic data set down under `paths.data`."""

import sys

from components.sample.generate import write_sample
from components.sample.plan import ACTIONS, Style
from pipelines._stage import Stage, run_stage


def main(stage: Stage) -> None:
    """Write the synthetic NTU-format sample data set."""
    section = stage.config.sample
    style = Style(seed=stage.config.seed)
    done = write_sample(stage.data, style, section.clips_per_class)
    sides = ", ".join(f"{n} {side}" for side, n in done.sides.items())
    print(
        f"{stage.data}: {done.clips} clips of {len(ACTIONS)} classes ({sides} under xsub60) and "
        f"{done.faulty} with planted faults, {done.bytes / 1e6:.0f} MB; {done.written} written now"
    )


if __name__ == "__main__":
    sys.exit(run_stage("sample", main))
