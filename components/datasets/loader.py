"""Batches one after the other, made ahead in a thread so that loading hides behind the model."""

import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from components.batch import Batch
from components.datasets.dataset import ClipDataset

_END = object()


class BatchLoader:
    """Iterate over a data set's batches; `prefetch` of them are kept ready (0 = no thread).

    An error in the thread is raised where the batch would have come. Leaving the loop early ends
    the thread.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batches: Sequence[np.ndarray],
        *,
        epoch: int = 0,
        device: str = "cpu",
        prefetch: int = 2,
    ) -> None:
        self.dataset = dataset
        self.batches = batches
        self.epoch = epoch
        self.device = device
        self.prefetch = prefetch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.prefetch < 1:
            yield from self._make()
            return
        ready: queue.Queue[object] = queue.Queue(maxsize=self.prefetch)
        stop = threading.Event()

        def offer(item: object) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for batch in self._make():
                    if not offer(batch):
                        return
                offer(_END)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                offer(error)

        thread = threading.Thread(target=work, name="batches", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not _END:
                if isinstance(item, BaseException):
                    raise item
                assert isinstance(item, Batch)
                yield item
        finally:
            stop.set()
            thread.join()

    def _make(self) -> Iterator[Batch]:
        for positions in self.batches:
            yield self.dataset.batch(positions, self.epoch, self.device)
