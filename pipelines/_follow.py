"""Follow a job on a Ray cluster to its end: its log as it grows, also over a lost connection.

Ray's own `tail_job_logs` waits for ever when the head's machine or the network goes away without a
word, and ends with a traceback when they do say something.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import aiohttp
import requests

from components.address import Address
from pipelines._stage import StageError

LOOK_SECONDS = 10.0  # without a new line, whether the job server still answers
BACK_SECONDS = 90.0  # for a job server to come back
ANSWER_SECONDS = 5.0  # for one answer of it
LOST = (RuntimeError, OSError, aiohttp.ClientError)  # what a broken connection looks like

Say = Callable[[str], None]


class Jobs(Protocol):
    """Ray's `JobSubmissionClient`, as far as it is used here."""

    def tail_job_logs(self, job: str, /) -> AsyncIterator[str]:
        """The log from its beginning, piece by piece, until the job or the connection ends."""

    def get_job_info(self, job: str, /) -> Any:
        """Ray's `JobDetails`."""


def follow(client: Jobs, address: Address, job: str, headers: dict[str, str], say: Say) -> Any:
    """Pass the log on to `say` as it grows, until the job has ended; its `JobDetails`.

    StageError when the cluster stays away, or comes back without the job.
    """
    return asyncio.run(_Follower(client, address, job, headers, say).run())


class _Follower:
    def __init__(
        self,
        client: Jobs,
        address: Address,
        job: str,
        headers: dict[str, str],
        say: Say,
    ) -> None:
        self.client, self.address, self.job = client, address, job
        self.headers, self.say = headers, say
        self.shown = 0  # characters of the log

    async def run(self) -> Any:
        while True:
            try:
                await self._stream()
            except LOST as error:
                self.say(
                    f"\n(the connection to {self.address.masked} is lost: {error or 'no answer'}; "
                    f"trying again for {BACK_SECONDS:.0f} s)\n"
                )
            info = await self._info()
            if info.status.is_terminal():
                return info

    async def _stream(self) -> None:
        """The log from where it was shown last; one of LOST when the connection is."""
        seen = 0
        lines = self.client.tail_job_logs(self.job)
        following = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(lines))
                done, _ = await asyncio.wait({following}, timeout=LOOK_SECONDS)
                if not done:
                    await asyncio.to_thread(self._ask)
                    continue
                text, following = following.result(), None
                new = text[max(0, self.shown - seen) :]
                seen += len(text)
                if new:
                    self.say(new)
                    self.shown = seen
        except StopAsyncIteration:
            return
        finally:
            if following is not None:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, *LOST):
                    await following

    async def _info(self) -> Any:
        deadline = time.monotonic() + BACK_SECONDS
        while True:
            try:
                await asyncio.to_thread(self._ask)
                return self.client.get_job_info(self.job)
            except LOST as error:
                if time.monotonic() > deadline:
                    raise StageError(
                        f"{self.address.masked} has not answered for {BACK_SECONDS:.0f} s "
                        f"({error}). Where the head is lost, start Ray again; then run the same "
                        "command: the job goes on where it was. What the job is doing: "
                        f"ray job logs {self.job} --address {self.address.masked}"
                    ) from error
            await asyncio.sleep(1)

    def _ask(self) -> None:
        """One of LOST unless the job server answers; StageError when it does not know the job."""
        url = f"{self.address.uri.rstrip('/')}/api/jobs/{self.job}"
        answer = requests.get(url, headers=self.headers, timeout=ANSWER_SECONDS)
        if answer.status_code == 404:
            raise StageError(
                f"the cluster at {self.address.masked} does not know job {self.job} any more: its "
                "head was started anew. Run the same command again: it goes on where the job was"
            )
        answer.raise_for_status()
