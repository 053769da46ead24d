"""A shop: an order and its job are one transaction. `uvicorn examples.fastapi_app:app`."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, ClassVar

import aiosqlite
import anyio
from fastapi import Body, FastAPI, HTTPException

from backlite_async import Client, JobStatus, QueueConfig, Retention, Task

logging.basicConfig(level=logging.INFO)
DATABASE = os.environ.get("DATABASE", "shop.db")
client = Client(DATABASE, workers=2, stop_timeout=20.0)


class SendReceipt(Task):
    config: ClassVar[QueueConfig] = QueueConfig("receipts", retention=Retention(duration=timedelta(days=1)))
    customer: str


@client.handler(SendReceipt)
async def send_receipt(task: SendReceipt) -> None:
    print(f"sending a receipt to {task.customer}", flush=True)
    async with await anyio.open_file(f"{DATABASE}.outbox", "a") as outbox:  # in place of a mail server
        await outbox.write(f"receipt for {task.customer}\n")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with client, aiosqlite.connect(DATABASE) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS orders (customer, amount CHECK (amount > 0))")
        yield  # afterwards the client stops, and gives running handlers their time


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=201)
async def create_order(customer: Annotated[str, Body()], amount: Annotated[int, Body()]) -> str:
    async with aiosqlite.connect(DATABASE) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        try:
            [job_id] = await client.add(SendReceipt(customer)).tx(connection).save()
            await connection.execute("INSERT INTO orders VALUES (?, ?)", (customer, amount))
        except aiosqlite.IntegrityError as error:
            await connection.rollback()  # neither an order nor a job
            raise HTTPException(422, f"no such order: {error}") from error
        await connection.commit()  # both, and the job starts without any further call
    return job_id


@app.get("/jobs/{job_id}")
async def job_status(job_id: str) -> JobStatus:
    return await client.status(job_id)
