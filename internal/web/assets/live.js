// SPDX-License-Identifier: Apache-2.0
// Keeps a page fresh: relative times, and new deaths by the event stream. The
// server renders everything; this only fetches the same page again and puts
// its content in place. Without scripts a page is complete, just still.
"use strict";

(() => {
  const steps = [[86400 * 2, 86400, "days"], [3600, 3600, "h"], [60, 60, "min"], [2, 1, "s"]];

  function ago(then) {
    const seconds = (Date.now() - then) / 1000;
    if (seconds < -60) return "in the future";
    for (const [from, unit, name] of steps) {
      if (seconds >= from) return Math.floor(seconds / unit) + " " + name + " ago";
    }
    return "just now";
  }

  function refreshTimes() {
    for (const t of document.querySelectorAll("time[data-ago]")) {
      const text = ago(Date.parse(t.dateTime));
      if (t.textContent !== text) t.textContent = text;
    }
  }

  const main = document.getElementById("main");
  let source = null;
  let waiting = null;
  let known = new Set(ids());

  function ids() {
    return [...document.querySelectorAll(".deaths h3 a")].map((a) => a.getAttribute("href"));
  }

  // A form that somebody is filling in, and what they opened, stay.
  async function refresh() {
    waiting = null;
    let answer;
    try {
      answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    } catch {
      return; // the next event tries again
    }
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const part = document.getElementById("deaths") ? "deaths" : "main";
    const fresh = page.getElementById(part);
    const old = document.getElementById(part);
    if (!fresh || !old) return;
    const open = [...old.querySelectorAll("details[open] > summary")].map((s) => s.textContent);
    for (const s of fresh.querySelectorAll("details > summary")) {
      if (open.includes(s.textContent)) s.parentElement.open = true;
    }
    old.replaceWith(fresh);
    const pager = document.querySelector(".pager");
    const newPager = page.querySelector(".pager");
    if (pager && newPager) pager.replaceWith(newPager);
    for (const a of document.querySelectorAll(".deaths h3 a")) {
      if (!known.has(a.getAttribute("href"))) a.closest("li").classList.add("fresh");
    }
    known = new Set(ids());
    refreshTimes();
  }

  let lastID = "";
  function listen() {
    const address = document.body.dataset.live;
    if (!address || source) return;
    const url = new URL(address, location.href);
    if (lastID) url.searchParams.set("last_event_id", lastID);
    const opened = new EventSource(url);
    source = opened;
    // A break the browser mends itself; an answer that is no stream is the end of it.
    opened.addEventListener("error", () => {
      if (source !== opened || opened.readyState !== EventSource.CLOSED) return;
      source = null;
      setTimeout(() => { if (!document.hidden) listen(); }, 5000 + Math.random() * 5000);
    });
    opened.addEventListener("death", (e) => {
      lastID = e.lastEventId;
      const watched = document.body.dataset.watch;
      if (watched && JSON.parse(e.data).id !== watched) return;
      // Many at once are one refresh.
      if (!waiting) waiting = setTimeout(refresh, 250);
    });
  }

  // A page that nobody looks at holds no connection.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      if (source) source.close();
      source = null;
      return;
    }
    refreshTimes();
    listen();
  });

  if (main) {
    refreshTimes();
    setInterval(refreshTimes, 15000);
    if (!document.hidden) listen();
  }
})();
