"""What the memory store keeps beside its jobs: errors, log lines, tags, who waits for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from .._history import MOST_ERRORS, MOST_LINES, History, Note, Trouble, error_record, line_record
from ._rows import Row

__all__ = ["Beside"]

K = TypeVar("K")


class Beside:
    """What there is beside jobs, by their ids, whether they live or have completed."""

    def __init__(self) -> None:
        self._errors: defaultdict[str, dict[int, Sequence[Any]]] = defaultdict(dict)
        self._lines: defaultdict[str, dict[tuple[int, int], Sequence[Any]]] = defaultdict(dict)
        self._tags: dict[str, dict[str, int]] = {}
        self._watches: defaultdict[str, set[str]] = defaultdict(set)
        self._number = 0

    def take_tags(self, job_id: str, tags: str | None) -> None:
        """Take in the tags of a new job."""
        for tag in dict.fromkeys(msgspec.json.decode(tags or "[]", type=list[str])):
            self._number += 1
            self._tags.setdefault(job_id, {})[tag] = self._number

    def forget(self, job_id: str) -> None:
        """Forget all of it, but who waits for the job."""
        for kept in (self._errors, self._lines, self._tags):
            kept.pop(job_id, None)

    def number(self, job_id: str, tag: str) -> int | None:
        """Return the number of a tag of a job; None: it has not got it."""
        return self._tags.get(job_id, {}).get(tag)

    def note(self, row: Row, note: Note) -> None:
        """Keep what a claim has said of itself."""
        if note.progress is not None:
            row.progress, row.progress_message = note.progress, note.message
        if note.lines:
            row.noted = 1
            lines = self._lines[row.id]
            for line in note.lines:
                lines[note.fence, line.number] = (note.attempt, line.at, line.level, line.text)
            self._lines[row.id] = _newest(lines, MOST_LINES)

    def keep_error(self, row: Row, fence: int, trouble: Trouble) -> None:
        """Keep how an attempt went wrong, of a row that is still as it was in that attempt."""
        row.noted = 1
        started_at = row.started_at if trouble.started_at is None else trouble.started_at
        errors = self._errors[row.id]
        errors[fence] = (
            trouble.attempt,
            trouble.type,
            trouble.message,
            trouble.traceback,
            row.owner,
            started_at,
            trouble.finished_at,
            trouble.duration,
        )
        self._errors[row.id] = _newest(errors, MOST_ERRORS)

    def history(self, job_id: str) -> History:
        """Return the errors and log lines of a job, oldest first."""
        errors, lines = self._errors.get(job_id, {}), self._lines.get(job_id, {})
        return History(
            errors=tuple(error_record(errors[fence]) for fence in sorted(errors)),
            lines=tuple(line_record(lines[place]) for place in sorted(lines)),
        )

    def watch(self, job_id: str, owner: str) -> None:
        """Remember that an owner waits for a job."""
        self._watches[job_id].add(owner)

    def unwatch(self, owner: str, job_ids: Sequence[str] | None = None) -> None:
        """Forget that an owner waits for some jobs, or for any."""
        for job_id in list(self._watches) if job_ids is None else job_ids:
            self._watches[job_id].discard(owner)
            if not self._watches[job_id]:
                del self._watches[job_id]

    def watched(self, job_id: str) -> bool:
        """Return whether anybody waits for a job."""
        return job_id in self._watches


def _newest(kept: dict[K, Sequence[Any]], most: int) -> dict[K, Sequence[Any]]:
    return {place: kept[place] for place in sorted(kept)[-most:]}  # type: ignore[type-var]
