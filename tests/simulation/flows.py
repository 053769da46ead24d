"""Whether workflows keep what they promise: what runs, in which order, how often, and how all of it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from backlite_async import JobStatus

from .history import (
    Claimed,
    Event,
    Extended,
    FlowActed,
    FlowEnded,
    FlowLeft,
    Node,
    Revoked,
    Steered,
    Stored,
    WaitBegan,
    WaitEnded,
    Woven,
    Written,
)

__all__ = ["check_flows"]

ENDED = {JobStatus.SUCCEEDED: "succeeded", JobStatus.FAILED: "failed", JobStatus.CANCELLED: "cancelled"}


class _Flow:
    """A workflow, as it was asked for, and how its jobs have really ended."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.callbacks: tuple[int | None, int | None, int | None] = (None, None, None)
        self.planned: set[str] = set()
        self.ends: dict[str, str] = {}
        self.cancelled = self.revived = self.deleted = False
        self.times = 0
        self.states: set[str] = set()
        self.left: FlowLeft | None = None
        self.called: Counter[int] = Counter()
        self.to_call: Counter[int] = Counter()
        self.fallbacks: Counter[int] = Counter()
        self.to_fall_back: Counter[int] = Counter()
        self.extended: Counter[str] = Counter()
        self.to_extend: Counter[str] = Counter()

    def status(self, number: int) -> str | None:
        """Return how a node has ended, by the ends of jobs and nothing else; None: it has not."""
        node = self.nodes[number]
        if node.job is not None and node.job in self.ends:
            return self.ends[node.job]
        before = [(self.status(earlier), self.frees(earlier)) for earlier in node.after]
        if any(status is not None and not frees for status, frees in before):
            return "skipped" if node.kind in ("step", "join") else None
        all_free = all(frees for _, frees in before)
        return "succeeded" if node.job is None and all_free else None

    def frees(self, number: int) -> bool:
        """Return whether a node has ended as what comes after it wants."""
        status = self.status(number)
        tolerated = self.nodes[number].if_failed == "continue" and status in ("failed", "cancelled")
        return status == "succeeded" or tolerated

    def state(self) -> str:
        """Return how the whole has ended."""
        ends = [(self.status(n), node) for n, node in self.nodes.items() if node.kind == "step"]
        counted = {status for status, node in ends if node.if_failed != "continue"}
        if "failed" in counted:
            return "failed"
        by_hand = self.cancelled and any(status in ("cancelled", "skipped") for status, _ in ends)
        return "cancelled" if by_hand or counted & {"cancelled", "skipped"} else "succeeded"


class _Flows:
    def __init__(self) -> None:
        self.found: list[str] = []
        self.flows: dict[str, _Flow] = {}
        self.places: dict[str, tuple[_Flow, int]] = {}
        self.forced: set[str] = set()
        self.asked: dict[tuple[str, int], list[str]] = {}
        self.waits: dict[int, str] = {}

    def fail(self, event: Event, text: str) -> None:
        self.found.append(f"workflow: {text} (at {event.at:.6f} s)")

    def see(self, event: Event) -> None:
        match event:
            case Woven():
                self.see_woven(event)
            case FlowActed():
                self.see_acted(event)
            case FlowEnded():
                self.see_ended(event)
            case FlowLeft():
                self.flows[event.flow].left = event
            case Extended():
                others = [jobs for (job, _), jobs in self.asked.items() if job == event.job]
                if any(not set(event.jobs).isdisjoint(jobs) for jobs in others):
                    self.fail(event, f"{event.job} adds what an earlier attempt of it has asked for")
                self.asked[event.job, event.fence] = event.jobs
            case WaitBegan() if event.job in self.flows:
                self.waits[event.number] = event.job
            case WaitEnded() if event.number in self.waits and event.status is not None:
                states = self.flows[self.waits[event.number]].states
                if event.status.value not in states:
                    self.fail(event, f"a wait was told {event.status}, of {states}")
            case Stored() | Claimed() | Written() | Revoked() | Steered() if event.job in self.places:
                self.see_job(event)
            case _:
                pass

    def see_woven(self, event: Woven) -> None:
        if event.callbacks is not None:  # else it has got more nodes
            flow = self.flows[event.flow] = _Flow()
            flow.callbacks = event.callbacks
            flow.planned.update(node.job for node in event.nodes if node.job is not None)
        flow = self.flows[event.flow]
        for node in event.nodes:
            flow.nodes[node.number] = node
            if node.job is not None:
                self.places[node.job] = flow, node.number

    def see_acted(self, event: FlowActed) -> None:
        flow = self.flows[event.flow]
        flow.deleted |= event.how == "delete"
        flow.cancelled = event.how == "cancel"

    def see_job(self, event: Stored | Claimed | Written | Revoked | Steered) -> None:
        flow, number = self.places[event.job]
        match event:
            case Stored():
                self.see_stored(event, flow, flow.nodes[number])
            case Claimed():
                self.see_claimed(event, flow, number)
            case Written(accepted=True) if event.status in ENDED:
                self.see_written(event, flow, flow.nodes[number])
            case Revoked(ended=True):
                before = flow.nodes[number].after
                barred = any(flow.status(n) is not None and not flow.frees(n) for n in before)
                if event.skipped and not barred and not flow.cancelled:
                    self.fail(event, f"{event.job} was skipped, and nothing before it bars it")
                flow.ends[event.job] = "skipped" if event.skipped else "cancelled"
            case Steered(how="rerun", was="completed"):
                if not event.follows or flow.ends.get(event.job) != "skipped":
                    self.forced.add(event.job)
                flow.revived = True
                flow.ends.pop(event.job, None)
            case _:
                pass

    def see_stored(self, event: Stored, flow: _Flow, node: Node) -> None:
        if event.flow is None:
            return
        if node.kind == "callback":
            flow.called[event.number or 0] += 1
            left = [
                n for n, other in flow.nodes.items() if other.kind != "callback" and flow.status(n) is None
            ]
            if left and not flow.cancelled:
                self.fail(event, f"callback {event.job} was added, and {left} have not ended")
        elif node.kind == "fallback":
            flow.fallbacks[node.after[0]] += 1
            if flow.status(node.after[0]) != "failed":
                self.fail(event, f"fallback {event.job} was added, and nothing has failed")
        elif event.job not in flow.planned:
            flow.extended[event.job] += 1

    def see_claimed(self, event: Claimed, flow: _Flow, number: int) -> None:
        node = flow.nodes[number]
        if event.job in flow.ends:
            self.fail(event, f"{event.job} runs, and is {flow.ends[event.job]}")
        if node.kind != "step" or event.job in self.forced or flow.revived:
            return
        wanting = [n for n in node.after if not flow.frees(n)]
        if wanting:
            self.fail(event, f"{event.job} was claimed before {wanting} have ended as it wants")

    def see_written(self, event: Written, flow: _Flow, node: Node) -> None:
        assert node.job is not None
        flow.ends[event.job] = ENDED[event.status]
        if event.status is JobStatus.FAILED and node.fallback and not flow.cancelled:
            flow.to_fall_back[node.number] += 1
        if event.status is JobStatus.SUCCEEDED and not flow.cancelled:
            flow.to_extend.update(self.asked.get((event.job, event.fence), []))

    # -- ends --------------------------------------------------------------------------------------

    def see_ended(self, event: FlowEnded) -> None:
        flow = self.flows[event.flow]
        flow.times += 1
        if event.times != flow.times or (flow.times > 1 and not flow.revived):
            self.fail(event, f"{event.flow} has ended {event.times} times, and nothing ran again")
        flow.states.add(event.status)
        self.compare(event, event.flow, flow, event.nodes)
        if event.status != flow.state() and not flow.revived:
            self.fail(event, f"{event.flow} has ended as {event.status}, not as {flow.state()}")
        good, bad, always = flow.callbacks
        called = good if event.status == "succeeded" else bad
        flow.to_call.update(number for number in (called, always) if number is not None)

    def compare(self, event: Event, name: str, flow: _Flow, nodes: Sequence[Node]) -> None:
        """See that each node has ended as it follows from how the jobs really ended."""
        for node in nodes:
            if node.kind == "callback" and node.status is None:
                continue
            expected = flow.status(node.number)
            if node.job is not None and node.job not in flow.ends and expected is not None:
                self.fail(event, f"{name}, node {node.number}, has not ended, and is {node.status}")
            fits = node.status == expected or (
                node.job is None and node.status == "skipped" and (flow.cancelled or flow.revived)
            )
            if not fits and not (flow.revived and node.job is None):
                self.fail(event, f"{name}, node {node.number}, is {node.status}, not {expected}")

    def finish(self) -> None:
        for name, flow in self.flows.items():
            if flow.deleted:
                continue
            if flow.left is None or flow.times == 0:
                self.found.append(f"workflow: {name} has never ended")
                continue
            self.compare(flow.left, name, flow, flow.left.nodes)
            for what, is_so, is_to in (
                ("callbacks", flow.called, flow.to_call),
                ("fallbacks", flow.fallbacks, flow.to_fall_back),
                ("extensions", flow.extended, flow.to_extend),
            ):
                if is_so != is_to:
                    self.found.append(f"workflow: {name} has the {what} {is_so}, not {is_to}")


def check_flows(events: Sequence[Event]) -> list[str]:
    """Return where a workflow did not go as it follows from what became of its jobs."""
    flows = _Flows()
    for event in events:
        flows.see(event)
    flows.finish()
    return flows.found
