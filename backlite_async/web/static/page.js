// What the page does with scripts: instants as people say them, refreshing while something is seen, a theme.
// Everything works without: forms are sent, links are followed, instants stand there in full.
"use strict";

// -- instants -----------------------------------------------------------------------------------
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function span(seconds) {
  for (let place = 0; place < UNITS.length; place++) {
    const [unit, length] = UNITS[place];
    if (seconds >= length || unit === "s") {
      const whole = Math.floor(seconds / length);
      const next = UNITS[place + 1];
      const rest = next && whole < 10 ? Math.floor((seconds % length) / next[1]) : 0;
      return `${whole} ${unit}` + (rest ? ` ${rest} ${next[0]}` : "");
    }
  }
}

// <time> is shown relative to now; with data-since, as the duration since then.
function tellTimes() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = (now - Date.parse(time.dateTime)) / 1000;
    if (Number.isNaN(seconds)) continue;
    let text = span(Math.abs(seconds));
    if (!("since" in time.dataset)) text = Math.abs(seconds) < 1 ? "now" : seconds > 0 ? `${text} ago` : `in ${text}`;
    if (time.textContent !== text) time.textContent = text;
  }
}

// -- live ---------------------------------------------------------------------------------------
const EVERY = 2000;
const live = document.getElementById("live");
const seen = new Map([...document.querySelectorAll("[data-live][id]")].map(part => [part.id, part.outerHTML]));
let tag = null, timer = null, asking = null, failures = 0;

function show(on) {
  if (!live) return;
  live.hidden = false;
  live.classList.toggle("off", !on);
  live.lastElementChild.textContent = on ? "Live" : "Not live";
}

// What an element is known by, in this page and in a fresh one.
const nameOf = one => one.id || one.getAttribute("href") || one.dataset.key
  || `${one.form?.getAttribute("action")} ${one.name}=${one.value || one.textContent}`;

// A log is followed at its end, unless somebody looks further up.
const atEnd = log => !log || log.scrollHeight - log.scrollTop - log.clientHeight < 8;
const follow = (log, top = log.scrollHeight) => log.scrollTo({top, behavior: "instant"});

// Put in what has changed. What somebody types in, or has opened, stays as it is.
function take(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const focused = document.activeElement;
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const now = fresh.getElementById(old.id);
    if (!now) continue;
    const typing = old.contains(focused) && focused.matches("input:not([type=checkbox]), textarea, select");
    if (typing || now.outerHTML === seen.get(old.id)) continue;
    seen.set(old.id, now.outerHTML);
    const open = [...old.querySelectorAll("details[id][open]")].map(details => details.id);
    const key = old.contains(focused) && nameOf(focused);
    const chosen = new Set([...old.querySelectorAll("input[name=id]:checked")].map(box => box.value));
    const box = old.querySelector(".scroll");
    const scrolled = box && {left: box.scrollLeft, top: box.scrollTop, behavior: "instant"};
    const log = old.querySelector(".log"), left = atEnd(log) ? undefined : log.scrollTop;
    const put = document.adoptNode(now);
    old.replaceWith(put);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const box of put.querySelectorAll("input[name=id]")) box.checked = chosen.has(box.value);
    for (const fresh of put.querySelectorAll(".log")) follow(fresh, left);
    if (scrolled) put.querySelector(".scroll")?.scrollTo(scrolled);
    if (key) {
      const again = [...put.querySelectorAll("a, button, input, summary, [tabindex]")];
      again.find(one => key === nameOf(one))?.focus({preventScroll: true});
    }
  }
  tellTimes();
  count();
}

async function look() {
  timer = null;
  if (document.hidden || asking) return;
  asking = new AbortController();
  try {
    const headers = tag ? {"If-None-Match": tag} : {};
    const answer = await fetch(location.href, {headers, signal: asking.signal, cache: "no-store", redirect: "error"});
    if (answer.status === 200) {
      tag = answer.headers.get("ETag");
      take(await answer.text());
    }
    failures = answer.ok || answer.status === 304 ? 0 : failures + 1;
  } catch (error) {
    failures += 1; // the server is away: asked less often until it is back
  } finally {
    asking = null;
    show(!failures);
    again();
  }
}

function again() {
  if (!document.hidden && timer === null) timer = setTimeout(look, EVERY * Math.min(1 + failures, 15));
}

if (document.querySelector("[data-live]")) {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { clearTimeout(timer); timer = null; } else if (timer === null) look();
  });
  window.addEventListener("pagehide", () => asking?.abort());
  show(true);
  again();
}

// -- choosing rows ------------------------------------------------------------------------------
// A form with .choose: [data-all] chooses every row, [data-count] tells how many, [data-needs] needs one.
function count() {
  for (const form of document.querySelectorAll("form.choose")) {
    const boxes = [...form.querySelectorAll("input[name=id]")];
    const chosen = boxes.filter(box => box.checked).length;
    const all = form.querySelector("[data-all]");
    if (all) {
      all.hidden = false;
      all.checked = chosen > 0 && chosen === boxes.length;
      all.indeterminate = chosen > 0 && chosen < boxes.length;
    }
    for (const label of form.querySelectorAll("[data-count]")) label.textContent = chosen ? `${chosen} chosen` : "";
    for (const button of form.querySelectorAll("[data-needs]")) button.disabled = chosen === 0;
  }
}

document.addEventListener("change", event => {
  if (event.target.matches?.("[data-all]")) {
    for (const box of event.target.form.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
  }
  count();
});

// -- keys: "/" goes to the search, "j" and "k" from row to row ---------------------------------------
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, textarea, select")) return;
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  } else if (event.key === "j" || event.key === "k") {
    const rows = [...document.querySelectorAll("tbody tr a.row")];
    const place = rows.indexOf(document.activeElement) + (event.key === "j" ? 1 : -1);
    if (rows.length) { event.preventDefault(); rows[Math.max(0, Math.min(place, rows.length - 1))].focus(); }
  }
});

// -- on a phone the navigation scrolls: to where one is -------------------------------------------------
const current = document.querySelector(".side [aria-current]");
if (current) {
  const bar = current.closest("nav");
  bar.scrollLeft += Math.max(0, current.getBoundingClientRect().right + 24 - bar.getBoundingClientRect().right);
}

// -- theme --------------------------------------------------------------------------------------
const theme = document.getElementById("theme");
if (theme) {
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    const home = new URL(document.querySelector(".brand").href).pathname;
    document.cookie = `backlite-theme=${root.dataset.theme}; path=${home}; max-age=31536000; SameSite=Strict`;
  });
}

// What was done is said once: not again at a reload.
const here = new URL(location.href);
if (here.searchParams.has("done")) {
  for (const name of ["done", "n", "of"]) here.searchParams.delete(name);
  history.replaceState(history.state, "", here);
}

tellTimes();
for (const log of document.querySelectorAll(".log")) follow(log);
setInterval(() => document.hidden || tellTimes(), 1000);
count();
