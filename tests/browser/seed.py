"""A believable world for the page: a day of a shop's jobs, and what is going on at the moment."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path

import anyio

from backlite_async import Client, Events, Task, Workflow, chain, group, testing

from .shop import (
    Apologise,
    BuildReport,
    CallWebhook,
    Charge,
    ImportProducts,
    Pack,
    RedeemGiftCard,
    Reserve,
    ResizeImage,
    SendEmail,
    Ship,
    Shop,
)

NOW = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)
"""The moment that the page shows."""

AGO = timedelta(minutes=4)
"""For how long the oldest job runs."""

LIMIT = 20.0
"""Seconds after which what should have happened has not."""

Adding = Callable[[Client], Awaitable[None]]
"""Adds something."""

NAMES = "ada ben cleo dan eve finn gus hana ivan june kim lea max nora omar pia quin rosa sam tess".split()
TEMPLATES = ("receipt", "shipped", "welcome", "password", "review")
PARTNERS = ("acme", "contoso", "fabrikam", "globex")


async def past(database: Path, *, jobs: int = 900) -> None:
    """Let a day go by, until `NOW`, in a new database."""
    rng = random.Random(8)
    clock = testing.ManualClock(NOW - timedelta(hours=25))
    client = testing.client(database, clock=clock, workers=1, rng=rng)  # one after the other: always alike
    shop = Shop(rng)
    shop.past = clock
    shop.register(client)
    plan = _notable()
    for number, instant in enumerate(_instants(rng, jobs)):
        plan.append((instant, partial(_add_something, rng, number, instant > NOW - 5 * AGO)))
    async with client:
        for instant, add in sorted(plan, key=itemgetter(0)):
            await _let_pass(client, clock, instant)
            await add(client)
        await _let_pass(client, clock, NOW - AGO)
    assert clock.instant <= NOW - AGO + timedelta(seconds=1), clock.instant


async def _let_pass(client: Client, clock: testing.ManualClock, until: datetime) -> None:
    """Run what is to run until an instant."""
    left = max(until - clock.instant, timedelta(0))
    await testing.run_until_idle(client, advance=left, raise_errors=False)


async def _add_something(rng: random.Random, number: int, late: bool, client: Client) -> None:
    await client.add(_something(rng, number, late)).tags(*_tags(rng)).save()


def _something(rng: random.Random, number: int, late: bool) -> Task:
    """Return a task: mostly e-mails, now and then a report, but no such long one late."""
    order = 9000 + number
    kind = rng.choices(range(5), (45, 25, 20, 9, 0 if late else 1))[0]
    if kind == 0:
        return SendEmail(f"{rng.choice(NAMES)}@example.org", rng.choice(TEMPLATES), api_key="key-of-the-shop")
    if kind == 1:
        return ResizeImage(f"products/{order}.jpg")
    if kind == 2:
        return CallWebhook(f"https://{rng.choice(PARTNERS)}.example/hooks", order)
    if kind == 3:
        return Charge(order, rng.randrange(900, 19900) / 100)
    return BuildReport(f"week {rng.randrange(1, 48)}", rng.choice(["DE", "FR", "NL"]))


def _instants(rng: random.Random, number: int) -> Iterator[datetime]:
    """Yield instants of the last day; by night there is less to do."""
    while number:
        instant = NOW - timedelta(seconds=rng.uniform(AGO.total_seconds() + 30, 24 * 3600))
        if rng.random() < 0.55 - 0.45 * math.cos((instant.hour + instant.minute / 60 - 2) / 24 * math.tau):
            number -= 1
            yield instant


def _tags(rng: random.Random) -> list[str]:
    return rng.choice([[], [], ["shop-de"], ["shop-fr"], ["shop-de", "retry-me"]])


def _notable() -> list[tuple[datetime, Adding]]:
    """Return when to add what has ended, or goes wrong, and is looked at by its id."""

    async def failed(client: Client) -> None:
        operation = client.add(CallWebhook("https://northwind.example/hooks/orders", 9412))
        operation.id("webhook-failed").max_attempts(3).tags("partner")
        await operation.meta({"customer": "ada", "source": {"page": "/checkout", "test": None}}).save()

    async def retried(client: Client) -> None:
        operation = client.add(CallWebhook("https://northwind.example/hooks/orders", 9431))
        await operation.id("webhook-retried").key("northwind").save()

    async def sent(client: Client) -> None:
        operation = client.add(SendEmail("ada@example.org", "receipt", api_key="key-of-the-shop"))
        operation.id("email-sent").key("customer-17").tags("receipt", "shop-de").timeout(5)
        await operation.meta({"order": 9412}).save()

    async def workflows(client: Client) -> None:
        done = chain(Reserve(1041), Charge(1041, 59.9), group(Pack(1041), _letter("receipt")), Ship(1041))
        lost = chain(Reserve(1040), RedeemGiftCard(1040, "EXPIRED-11"), Ship(1040), name="order 1040")
        await client.add(done, lost).save()

    ago = (50, failed), (6, retried), (20, sent), (120, workflows)
    return [(NOW - timedelta(minutes=minutes), add) for minutes, add in ago]


def _letter(template: str) -> SendEmail:
    return SendEmail("ada@example.org", template)


def shop_client(database: Path, shop: Shop) -> Client:
    """Make the client of the shop's process, a little before `NOW`."""
    clock = testing.ManualClock(NOW - AGO)
    client = testing.client(database, clock=clock, workers=10, lease=3600)
    shop.register(client)
    return client


async def _seen(events: Events, wanted: set[tuple[str, str]]) -> None:
    """Wait until there were these kinds of events, with a job's progress."""
    async for event in events:
        wanted.discard((event.kind, str(event.progress)))
        if not wanted:
            return


async def present(client: Client, shop: Shop) -> dict[str, str]:
    """Have a started client do something; return the ids of a workflow that runs, and of a step."""
    for name in ("import-running", "report-running", "pack 1042"):
        shop.hold(name)
    assert isinstance(client.clock, testing.ManualClock)
    workflow = _order()
    add = client.add
    with anyio.fail_after(LIMIT):
        async with client.events() as events:
            await (
                add(ImportProducts("Acme")).id("import-running").key("acme").priority(2).tags("night").save()
            )
            await _seen(events, {("progress", "0.62")})
            await _meanwhile(client, shop, 97)
            await add(BuildReport("October", "DE")).id("report-running").save()
            await _seen(events, {("progress", "0.25")})
            await _meanwhile(client, shop, 80)
            await add(workflow).tags("shop-de").meta({"customer": "ada"}).save()
            await _seen(events, {("progress", "0.66"), ("failed", "None")})
            await _meanwhile(client, shop, 60)
        client.clock.set(NOW)
        await _planned(client)
    return {"workflow": workflow.id, "step": workflow.steps[4].id}


async def _meanwhile(client: Client, shop: Shop, seconds: int) -> None:
    """Let time pass, in which quick jobs run."""
    assert isinstance(client.clock, testing.ManualClock)
    for number in range(0, seconds, 20):
        [job_id] = await client.add(_letter(shop.rng.choice(TEMPLATES))).save()
        await client.wait(job_id, timeout=LIMIT)
        client.clock.advance(min(20, seconds - number))


def _order() -> Workflow:
    """Return an order of which one step runs, one has failed, others wait or never will run."""
    order = Workflow(name="order 1042")
    order.add(Reserve(1042), name="reserve")
    order.add(Charge(1042, 134.9), name="charge", after=["reserve"])
    order.add(
        RedeemGiftCard(1042, "EXPIRED-7"), name="gift card", after=["reserve"], if_failed=Apologise(1042)
    )
    order.add(_letter("gift-card"), name="thank", after=["gift card"])
    order.add(Pack(1042), name="pack", after=["charge"])
    order.add(ResizeImage("labels/1042.png", (300,)), name="label", after=["charge"])
    order.add(Ship(1042), name="ship", after=["pack", "label"])
    order.add(_letter("shipped"), name="tell", after=["ship"])
    return order


async def _planned(client: Client) -> None:
    """Add what waits for its time, its turn, or somebody."""
    add = client.add
    await add(ImportProducts("Acme", 120)).id("import-waiting").key("acme").save()
    await (
        add(SendEmail("eve@example.org", "review"))
        .id("email-scheduled")
        .at(NOW + timedelta(days=6))
        .priority(-3)
        .meta({"order": 9398})
        .save()
    )
    for hours in (2, 5, 9, 30):
        await add(SendEmail(f"{NAMES[hours % 20]}@example.org", "review")).wait(hours * 3600).save()
    await add(ResizeImage("products/withdrawn.jpg")).id("image-cancelled").wait(60).save()
    await client.cancel("image-cancelled")
    await client.pause("webhooks")
    for order in (9450, 9451, 9452):
        await add(CallWebhook("https://globex.example/hooks", order)).save()
    await client.schedules.pause("newsletter")
