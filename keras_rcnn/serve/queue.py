"""Photos of many requests, one line a model: room for so many, read by a few threads, run in batches by one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from keras_rcnn.serve.metrics import Metrics
from keras_rcnn.serve.model import Found, Photo, Ready, ServedModel
from keras_rcnn.serve.refusal import Refusal
from keras_rcnn.serve.settings import ServeSettings

# of what a photo takes, from one batch to the next
_MEMORY = 0.8


class _Job:
    """A photo on its way; `ready` as soon as it is read."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self.ready: Ready | None = None
        self.since = 0.0


class PhotoQueue:
    """A model and the photos that wait for it. All but the reading and the model happens in the event loop.

    A photo that is read waits for others of its padded size until there are `max_batch`, until `max_wait_ms` is over,
    or until no other photo is on its way; while the model runs, more come together by themselves.

    Args:
        model: `ServedModel`.
        settings: `ServeSettings`.
        readers: threads that read photos.
        searcher: the one thread of selective search, whose random numbers belong to the process.
        metrics: `Metrics`.
    """

    def __init__(
        self, model: ServedModel, settings: ServeSettings, readers: Executor, searcher: Executor, metrics: Metrics
    ) -> None:
        self.model, self.settings, self.metrics = model, settings, metrics
        self._readers, self._searcher = readers, searcher
        self._thread = ThreadPoolExecutor(1, f"model-{model.name}")
        self._waiting: dict[_Job, None] = {}  # in the order of their arrival
        self._news = asyncio.Event()
        # photos that are held as the model takes them: a batch that runs, one that comes together, and what is read
        self._slots = asyncio.Semaphore(2 * model.max_batch + settings.workers)
        self._seconds = 0.0  # that a photo takes of the model's thread
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Photos that the model has not begun with."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the batches are still made."""
        return self._worker is not None and not self._worker.done()

    def start(self) -> None:
        """Begins to make batches, in the running event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Ends the threads; what they have begun is done first."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        self._thread.shutdown(wait=True, cancel_futures=True)

    def check_room(self, count: int = 1) -> None:
        """Refuses so many more photos if the queue has no room for them."""
        if len(self._waiting) + count > self.settings.queue:
            seconds = max(1, math.ceil(len(self._waiting) * self._seconds))
            raise Refusal(
                429,
                f"{len(self._waiting)} photos wait for {self.model.name}, and there is room for {self.settings.queue}: "
                f"come again in {seconds} s.",
                "queue_full",
                retry_after=seconds,
            )

    async def ask(self, photos: Sequence[Photo]) -> list[Found]:
        """What the model finds in each photo.

        Raises:
            Refusal: no room, or a photo that cannot be read; then the others are given up as well.
        """
        self.check_room(len(photos))
        jobs = [_Job() for _ in photos]
        self._waiting.update(dict.fromkeys(jobs))
        tasks = [asyncio.ensure_future(self._one(job, photo)) for job, photo in zip(jobs, photos, strict=True)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            for job in jobs:
                self._waiting.pop(job, None)
                job.answer.cancel()
            self._news.set()

    async def _one(self, job: _Job, photo: Photo) -> Found:
        async with self._slots:
            searched = self.model.wants_proposals and photo.proposals is None
            threads = self._searcher if searched else self._readers
            job.ready = await asyncio.get_running_loop().run_in_executor(threads, self.model.prepare, photo)
            job.since = time.monotonic()
            self._news.set()
            return await job.answer

    # === Batches ===

    async def _work(self) -> None:
        while True:
            group = await self._next_group()
            ready = [job.ready for job in group if job.ready is not None]
            started = time.monotonic()
            try:
                answers = await self._run(ready)
            except Exception as error:  # noqa: BLE001 (whatever a model raises is told to whoever asked)
                answers = [error] * len(group)
            each = (time.monotonic() - started) / len(group)
            self._seconds = each if not self._seconds else _MEMORY * self._seconds + (1 - _MEMORY) * each
            self.metrics.batch(self.model.name, len(group), each * len(group))
            for job, answer in zip(group, answers, strict=True):
                if job.answer.done():  # nobody waits for it any more
                    continue
                if isinstance(answer, Exception):
                    job.answer.set_exception(answer)
                else:
                    job.answer.set_result(answer)

    async def _next_group(self) -> list[_Job]:
        """The oldest photo and others that can share its batch."""
        while True:
            self._news.clear()
            jobs = sorted((job for job in self._waiting if job.ready is not None), key=lambda job: job.since)
            left = None
            if jobs:
                group = [job for job in jobs if job.ready and jobs[0].ready and job.ready.key == jobs[0].ready.key]
                group = group[: self.model.max_batch]
                on_their_way = len(self._waiting) - len(jobs)
                left = jobs[0].since + self.settings.max_wait_ms / 1000 - time.monotonic()
                if len(group) == self.model.max_batch or not on_their_way or left <= 0:
                    for job in group:
                        del self._waiting[job]
                    return group
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    async def _run(self, ready: list[Ready]) -> list[Found | Exception]:
        """The answers; if a batch fails, those of its photos one by one, so that none fails for another."""
        run, loop = self.model.run, asyncio.get_running_loop()
        try:
            return [*await loop.run_in_executor(self._thread, run, ready)]
        except Exception:
            if len(ready) == 1:
                raise
        answers: list[Found | Exception] = []
        for one in ready:
            try:
                answers += await loop.run_in_executor(self._thread, run, [one])
            except Exception as error:  # noqa: BLE001
                answers.append(error)
        return answers
