"""Other sites can show links to the page, and nothing more."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import expect

from backlite_async import JobStatus

from .conftest import Open
from .serving import App, World, serve


def pages(bodies: dict[str, str]) -> App:
    """Return an application with these pages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = bodies.get(scope["path"])
        status = 200 if body else 404
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/html")]}
        )
        await send({"type": "http.response.body", "body": (body or "").encode()})

    return app


async def test_a_form_of_another_site_is_refused(steered: World, opened: Open) -> None:
    """What the page's own form sends changes nothing if another site sends it."""
    page, watch = await opened(steered.base)
    await page.goto("/jobs/webhook-failed")
    form = page.locator("main form", has=page.get_by_role("button", name="Delete", exact=True))
    action = await form.get_attribute("action")
    sent = await form.evaluate("form => [...new FormData(form)]")
    button = form.get_by_role("button", name="Delete")
    sent += await button.evaluate("one => one.name ? [[one.name, one.value]] : []")
    watch.check()
    fields = dict(sent) | {"confirmed": "1"}
    for host in ("127.0.0.1", "localhost"):  # another origin of the same site, and another site
        evil = {"/": attack(steered.base + str(action), fields)}
        async with serve(pages(evil)) as other:
            foreign, _ = await opened(other.replace("127.0.0.1", host))
            async with foreign.expect_response(steered.base + str(action)) as answer:
                await foreign.goto("/")
            assert (await answer.value).status == 403
        await expect(foreign.get_by_role("heading", level=1)).to_be_visible()
        assert await steered.client.status("webhook-failed") is JobStatus.FAILED
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.locator("main").get_by_role("button", name="Delete").click()
    assert await steered.client.status("webhook-failed") is JobStatus.NOT_FOUND


async def test_scripts_of_another_site_learn_and_change_nothing(steered: World, opened: Open) -> None:
    """By fetch, in any mode, no answer can be read and nothing is changed; nor can the page be framed."""
    frame = f'<!doctype html><title>Evil</title><iframe src="{steered.base}/jobs"></iframe>'
    async with serve(pages({"/": frame})) as other:
        page, _ = await opened(other)
        await page.goto("/")
        address = f"{steered.base}/queues/emails/pause"
        for mode in ("cors", "no-cors"):
            assert await page.evaluate(READ, [f"{steered.base}/jobs", "GET", mode]) in (
                "refused",
                "opaque:0:",
            )
            assert await page.evaluate(READ, [address, "POST", mode]) in ("refused", "opaque:0:")
        assert "Jobs" not in await page.frames[1].content()
    assert [queue.paused for queue in await steered.client.queues.list() if queue.name == "emails"] == [False]


async def test_a_link_of_another_site_works(steered: World, opened: Open) -> None:
    """One can come from elsewhere, say from a chat."""
    link = f'<!doctype html><title>Chat</title><a href="{steered.base}/jobs/webhook-failed">Look!</a>'
    async with serve(pages({"/": link})) as other:
        page, _ = await opened(other)
        await page.goto("/")
        await page.get_by_role("link", name="Look!").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("CallWebhook")


READ = """([address, method, mode]) => fetch(address, {method, mode, credentials: "include"})
  .then(answer => answer.text().then(text => `${answer.type}:${answer.status}:${text}`), () => "refused")"""


def attack(address: str, fields: dict[str, str]) -> str:
    """Return a page that sends a form as soon as it is looked at."""
    return f"""<!doctype html><title>Evil</title><script>
      const form = document.createElement("form");
      form.method = "post";
      form.action = {json.dumps(address)};
      for (const [name, value] of Object.entries({json.dumps(fields)})) {{
        const field = document.createElement("input");
        field.name = name;
        field.value = value;
        form.append(field);
      }}
      addEventListener("load", () => {{ document.body.append(form); form.submit(); }});
    </script>"""
