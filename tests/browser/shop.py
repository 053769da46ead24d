"""A shop's tasks and handlers, as an application has them: what the page is shown and tried with."""

from __future__ import annotations

import asyncio
import linecache
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

from backlite_async import Backoff, Client, Discard, JobContext, QueueConfig, Rate, Retention, Task, testing

KEPT = Retention(duration=timedelta(days=7), payload="always")

emails = QueueConfig("emails", max_attempts=5, timeout=20.0, retention=KEPT, rate=Rate(600, per=60))
images = QueueConfig("images", max_attempts=3, timeout=120.0, retention=KEPT, concurrency=4)
imports = QueueConfig("imports", max_attempts=2, retention=KEPT, concurrency_per_key=1, priority=-5)
orders = QueueConfig("orders", max_attempts=4, timeout=600.0, retention=KEPT, priority=5)
reports = QueueConfig("reports", timeout=900.0, retention=KEPT, global_concurrency=2)
webhooks = QueueConfig("webhooks", max_attempts=6, backoff=Backoff(base=60.0, jitter=0.0), retention=KEPT)


class SendEmail(Task):
    """Send an e-mail to a customer.

    The template is filled in with the customer's name and language.
    """

    config: ClassVar[QueueConfig] = emails
    to: str
    template: str
    language: str = "en"
    api_key: str = ""


class ResizeImage(Task):
    """Make the sizes of a product picture that the shop shows."""

    config: ClassVar[QueueConfig] = images
    path: str
    widths: tuple[int, ...] = (320, 800, 1600)


class ImportProducts(Task):
    """Read a supplier's price list into the catalogue."""

    config: ClassVar[QueueConfig] = imports
    supplier: str
    rows: int = 3000
    dry_run: bool = False


class Reserve(Task):
    """Reserve the goods of an order in the warehouse."""

    config: ClassVar[QueueConfig] = orders
    order: int


class Charge(Task):
    """Charge the customer's card."""

    config: ClassVar[QueueConfig] = orders
    order: int
    amount: float


class RedeemGiftCard(Task):
    """Take what is paid by gift card off its balance."""

    config: ClassVar[QueueConfig] = orders
    order: int
    card: str


class Pack(Task):
    """Have the goods packed."""

    config: ClassVar[QueueConfig] = orders
    order: int


class Ship(Task):
    """Hand the parcel to the carrier, and get its number."""

    config: ClassVar[QueueConfig] = orders
    order: int


class Apologise(Task):
    """Tell the customer that the gift card could not be used."""

    config: ClassVar[QueueConfig] = orders
    order: int


class BuildReport(Task):
    """Sum up the sales of a period."""

    config: ClassVar[QueueConfig] = reports
    period: str
    country: str | None = None


class CallWebhook(Task):
    """Tell a partner's system about an order."""

    config: ClassVar[QueueConfig] = webhooks
    url: str
    order: int
    event: str = "order.paid"


class Shop:
    """The handlers. In the past, work moves the clock on; at present it takes until it is let go."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.past: testing.ManualClock | None = None
        self.held: dict[str, asyncio.Event] = {}

    def register(self, client: Client) -> None:
        """Give a client all handlers and schedules."""
        for kind, handler in HANDLERS.items():
            client.register(kind, handler.__get__(self))
        declare(client)

    def hold(self, name: str) -> asyncio.Event:
        """Have the job of an id, or a step, run until the event is set."""
        return self.held.setdefault(name, asyncio.Event())

    async def work(self, job: JobContext, seconds: float, *, step: str = "") -> None:
        """Take about so long; at present no time, but if the job or step is held."""
        gate = self.held.get(step or job.id)
        if self.past is not None:
            self.past.advance(seconds * self.rng.lognormvariate(0.0, 0.6))
        elif gate is not None:
            await gate.wait()

    def unlucky(self, chance: float) -> bool:
        """Return whether something goes wrong that seldom does."""
        return self.past is not None and self.rng.random() < chance

    async def send_email(self, task: SendEmail, job: JobContext) -> dict[str, str]:
        job.log.info("template filled", template=task.template, language=task.language)
        await self.work(job, 0.4)
        if self.unlucky(0.01):
            raise TimeoutError("mail.shop.example did not answer in 10 seconds")
        return {"message": f"<{self.rng.getrandbits(48):012x}@shop.example>"}

    async def resize_image(self, task: ResizeImage, job: JobContext) -> list[str]:
        for number, width in enumerate(task.widths, 1):
            await job.progress(number / len(task.widths), f"{width} pixels")
            await self.work(job, 0.9)
        if self.unlucky(0.02):
            raise ValueError(f"{task.path}: not a picture, or a damaged one")
        return [f"{task.path}?w={width}" for width in task.widths]

    async def import_products(self, task: ImportProducts, job: JobContext) -> int:
        job.log.info("price list opened", supplier=task.supplier, rows=task.rows)
        await job.progress(0.3, f"{task.rows * 3 // 10:,} of {task.rows:,} rows")
        job.log.warning("price is 0, row left out", row=412, article="AZ-1180")
        job.log.info("half of it", new=87, changed=1391)
        await job.progress(0.62, f"{task.rows * 62 // 100:,} of {task.rows:,} rows")
        await self.work(job, 18.0)
        return task.rows - 1

    async def reserve(self, task: Reserve, job: JobContext) -> str:
        await self.work(job, 0.2)
        return f"shelf {task.order % 40}"

    async def charge(self, task: Charge, job: JobContext) -> dict[str, Any]:
        await self.work(job, 1.1)
        if self.unlucky(0.06):
            raise Discard("the card was declined")
        return {"paid": task.amount, "currency": "EUR"}

    async def redeem(self, task: RedeemGiftCard, job: JobContext) -> float:
        await self.work(job, 0.3)
        if task.card.startswith("EXPIRED"):
            raise Discard(f"gift card {task.card} expired on 2026-10-31")
        return 25.0

    async def pack(self, task: Pack, job: JobContext) -> float:
        job.log.info("picked", items=2, of=3)
        await job.progress(0.66, "2 of 3 items picked")
        await self.work(job, 9.0, step=f"pack {task.order}")
        return 1.4

    async def ship(self, task: Ship, job: JobContext) -> str:
        await self.work(job, 0.8)
        return f"JJD{task.order:010}"

    async def apologise(self, task: Apologise, job: JobContext) -> None:
        await self.work(job, 0.2)

    async def build_report(self, task: BuildReport, job: JobContext) -> dict[str, int]:
        await job.progress(0.25, "orders read")
        job.log.info("orders read", period=task.period, orders=5218)
        await self.work(job, 42.0)
        return {"orders": 5218, "returns": 131}

    async def call_webhook(self, task: CallWebhook, job: JobContext) -> int:
        await self.work(job, 0.6)
        return answered(task.url, self.unlucky(0.04))


class PartnerDown(Exception):
    """A partner's system does not do what it should."""


def answered(url: str, unlucky: bool) -> int:
    """Return what a partner's system says: 202, if it is well."""
    if "northwind" in url:
        raise PartnerDown(f"POST {url}: 503 Service Unavailable (maintenance until 18:00)")
    if unlucky:
        raise PartnerDown(f"POST {url}: connection reset by peer")
    return 202


HANDLERS: dict[type[Any], Callable[..., Any]] = {
    SendEmail: Shop.send_email,
    ResizeImage: Shop.resize_image,
    ImportProducts: Shop.import_products,
    Reserve: Shop.reserve,
    Charge: Shop.charge,
    RedeemGiftCard: Shop.redeem,
    Pack: Shop.pack,
    Ship: Shop.ship,
    Apologise: Shop.apologise,
    BuildReport: Shop.build_report,
    CallWebhook: Shop.call_webhook,
}


def declare(client: Client) -> None:
    """Declare the shop's schedules."""
    client.schedule("monthly-report", BuildReport("last month"), cron="0 6 1 * *", tz="Europe/Berlin")
    client.schedule("nightly-report", BuildReport("yesterday"), cron="0 3 * * *", tz="Europe/Berlin")
    client.schedule(
        "newsletter",
        SendEmail("all@shop.example", "news"),
        rule="FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=8;BYMINUTE=30;BYSECOND=0",
    )
    client.schedule("sync-prices", ImportProducts("Acme", 400), every=timedelta(hours=1), overlap=False)
    client.schedule("warm-pictures", ResizeImage("front.jpg"), every=timedelta(minutes=30), jitter=60)


def as_installed(place: str) -> None:
    """Have tracebacks show the shop's code where an application has it, not where this file is."""
    with open(__file__, encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    linecache.cache[place] = (0, None, lines, place)
    for function in [*HANDLERS.values(), answered]:
        function.__code__ = function.__code__.replace(co_filename=place)


as_installed("/srv/shop/tasks.py")
