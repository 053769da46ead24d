"""A job that adds more jobs, and a plain `def` handler: `python examples/nested_jobs.py`."""

import asyncio
import hashlib
import tempfile
from typing import ClassVar

import anyio.from_thread

from backlite_async import Client, QueueConfig, Task, current_client, current_job

images = QueueConfig("images", timeout=60.0)  # task types that share this object share the queue


class ImportAlbum(Task):
    """Find an album's pictures, and have a thumbnail made of each."""

    config: ClassVar[QueueConfig] = images
    pictures: list[str]


class MakeThumbnail(Task):
    """Make one picture small."""

    config: ClassVar[QueueConfig] = images
    picture: str


folder = tempfile.TemporaryDirectory()
client = Client(f"{folder.name}/app.db", workers=4)
thumbnails: asyncio.Queue[str] = asyncio.Queue()


@client.handler(ImportAlbum)
async def import_album(task: ImportAlbum) -> None:
    added = await current_client().add(*map(MakeThumbnail, task.pictures)).save()  # all or nothing
    print(f"{current_job().queue}: the album became {len(added)} more jobs")


@client.handler(MakeThumbnail)
def make_thumbnail(task: MakeThumbnail) -> None:
    """Run in a worker thread, as every plain `def`: what blocks or computes belongs into one."""
    digest = hashlib.scrypt(task.picture.encode(), salt=b"", n=2**10, r=8, p=1, dklen=4).hex()
    name = f"{task.picture} -> {digest}.png (attempt {current_job().attempt})"
    anyio.from_thread.run_sync(thumbnails.put_nowait, name)  # back to the event loop


async def main() -> None:
    async with client:
        pictures = ["beach.jpg", "hills.jpg", "river.jpg"]
        await client.add(ImportAlbum(pictures)).save()
        for _ in pictures:
            print(await thumbnails.get())


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
