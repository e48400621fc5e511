"""Load of the machine while a run goes on, as metrics under the names of MLflow's own monitor."""

import threading

import psutil
import torch

from mlflow_tracking.record import Record, now_ms

INTERVAL = 10.0  # seconds between two samples, as in MLflow's own monitor


class Sampler:
    """A thread that writes CPU, memory, disk, network and GPU figures to the run's record.

    MLflow's monitor needs a run on a server to begin with, and loses what it measured while that is
    away.
    """

    def __init__(self, record: Record, interval: float = INTERVAL) -> None:
        self._record, self._interval = record, interval
        # Steps count from the run's start, so they go on after a restart.
        self._start_ms = int(record.body()["started_at"])
        self._stop = threading.Event()
        psutil.cpu_percent()  # The first call has nothing to compare with and says 0.
        threading.Thread(target=self._work, name="mlflow-system", daemon=True).start()

    def stop(self) -> None:
        """End with the next sample due."""
        self._stop.set()

    def _work(self) -> None:
        while not self._stop.wait(self._interval):
            step = int((now_ms() - self._start_ms) / 1000 / self._interval)
            self._record.add_metrics(sample(), step)


def sample() -> dict[str, float]:
    """The figures of this moment."""
    memory, disk, network = (
        psutil.virtual_memory(),
        psutil.disk_usage("/"),
        psutil.net_io_counters(),
    )
    figures = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/disk_usage_percentage": disk.percent,
        "system/network_receive_megabytes": network.bytes_recv / 1e6,
        "system/network_transmit_megabytes": network.bytes_sent / 1e6,
    }
    for device in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(device)
        figures[f"system/gpu_{device}_memory_usage_megabytes"] = (total - free) / 1e6
        figures[f"system/gpu_{device}_memory_usage_percentage"] = 100 * (1 - free / total)
    return figures
