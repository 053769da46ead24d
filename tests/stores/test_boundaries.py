"""What every store promises at the edges: the very instant, and what must leave no trace."""

from __future__ import annotations

from backlite_async._job import ClaimedJob, Complete, JobStatus
from backlite_async.stores import Store

from .test_contract import again, claim, claim_one, complete, new, record, running


async def leaves_no_record(store: Store, late: Complete, current: ClaimedJob) -> None:
    """Write an outcome that is not accepted; then end the job without a record."""
    assert await store.finish([late]) == {late.id}
    assert await store.status(late.id, now=0) is not late.status
    assert await store.next_expiry() is None
    assert await store.finish([complete(current, keep=None)]) == set()
    assert await store.status(late.id, now=0) is JobStatus.NOT_FOUND
    assert await store.get(late.id, now=0) is None


async def test_stale_outcome_leaves_no_record(store: Store) -> None:
    """An outcome under a former claim is not kept, either."""
    former = await running(store)
    await store.finish([again(former, due_at=0)])
    await leaves_no_record(store, complete(former), await claim_one(store))


async def test_outcome_of_a_job_given_back_leaves_no_record(store: Store) -> None:
    """An outcome of a claim that was given back, and not followed by another, is not kept."""
    former = await running(store)
    await store.finish([again(former, due_at=0)])
    assert await store.finish([complete(former)]) == {"a"}
    await store.finish([complete(await claim_one(store), keep=None)])
    assert await store.status("a", now=0) is JobStatus.NOT_FOUND


async def test_outcome_of_a_lease_that_was_renewed_leaves_no_record(store: Store) -> None:
    """A crash that was none, because the lease had been renewed, is not kept."""
    job = await running(store, until=500)
    assert store.renew([("a", job.fence)], until=900) == set()
    await leaves_no_record(store, complete(job, status=JobStatus.FAILED, lapsed_by=600), job)


async def test_lease_that_ends_now_is_not_waited_for(store: Store) -> None:
    """A lease of another owner that ends at this very instant is reported, and is no reason to wake again."""
    await running(store, owner="other", until=500)
    found = await claim(store, now=500)
    assert [claim.until for claim in found.lapsed] == [500]
    assert found.next_at is None
    later = await claim(store, now=499)
    assert (later.lapsed, later.next_at) == ([], 500)


async def test_job_that_is_due_now_is_claimed_and_not_waited_for(store: Store) -> None:
    """A job that is due at this very instant is claimed; a millisecond before, it is waited for."""
    await store.add([new("a", due_at=100)])
    before = await claim(store, now=99)
    assert (before.jobs, before.next_at) == ([], 100)
    assert [job.id for job in (await claim(store, now=100)).jobs] == ["a"]


async def test_record_keeps_nothing_of_a_later_refusal(store: Store) -> None:
    """A kept record stays as it is when its outcome is written once more."""
    job = await running(store)
    await store.finish([complete(job)])
    assert await store.finish([complete(job, status=JobStatus.FAILED, error="late")]) == {"a"}
    assert (await record(store, "a")).status is JobStatus.SUCCEEDED
