// What the page does by itself: it shows what changed, keeps what a person is writing, and can be used from the keyboard.
// Without it every form still works; nothing here decides anything.
"use strict";

(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);

  // --- times in the reader's own words

  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const steps = [["day", 86400], ["hour", 3600], ["minute", 60]];

  function tellTimes(root = document) {
    for (const element of all("time[datetime]", root)) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const seconds = (moment.getTime() - Date.now()) / 1000;
      const [unit, length] = steps.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
      const amount = Math.trunc(seconds / length);
      const text = unit === "second" && Math.abs(amount) < 10 ? "now" : relative.format(amount, unit);
      if (element.textContent !== text) element.textContent = text;
      element.title = absolute.format(moment);
    }
  }

  // --- notices

  function tell(message, failed = false) {
    const notice = one("#notice");
    notice.hidden = false;
    notice.classList.toggle("failed", failed);
    notice.textContent = message;
  }

  // --- live parts: fetched again, and put in place without touching what somebody is at work on

  const inUse = (node) =>
    node.contains(document.activeElement) && !document.activeElement.matches("[data-key]")
    || all("textarea, input:not([type=hidden])", node).some((field) => field.value !== field.defaultValue)
    || all("details", node).some((details) => details.open);

  function merge(old, fresh) {
    if (!old.hasAttribute("data-cards")) {
      if (inUse(old)) return;
      const focused = old.contains(document.activeElement) && document.activeElement.dataset.key;
      if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
      if (focused) one(`[data-key="${CSS.escape(focused)}"]`, old)?.focus();
      return;
    }
    const before = new Map(all(":scope > [data-key]", old).map((node) => [node.dataset.key, node]));
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    const at = [...before.keys()].indexOf(focused);
    let place = null;
    for (const node of all(":scope > [data-key]", fresh)) {
      const known = before.get(node.dataset.key);
      before.delete(node.dataset.key);
      let shown = node;
      if (known && (known.dataset.version === node.dataset.version || inUse(known))) shown = known;
      else if (known) known.replaceWith(node);
      else node.classList.add("arrived");
      const next = place ? place.nextElementSibling : old.firstElementChild;
      if (next !== shown) old.insertBefore(shown, next);
      place = shown;
    }
    let lost = false;
    for (const [key, node] of before) {
      lost ||= key === focused;
      node.remove();
    }
    if (lost) (all(":scope > [data-key]", old)[Math.max(at, 0)] ?? one("#main")).focus();
  }

  let fetching = false;
  let again = false;

  async function refresh() {
    if (fetching) {
      again = true;
      return;
    }
    fetching = true;
    try {
      const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "follow" });
      if (answer.redirected || !answer.ok) {
        if (answer.redirected) location.reload();
        return;
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of all("[data-part]")) {
        const other = one(`[data-part="${part.dataset.part}"]`, fresh);
        if (other) merge(part, other);
      }
      document.title = fresh.title;
      tellTimes();
    } catch {
      // The stream's own state says that the server is away.
    } finally {
      fetching = false;
      if (again) {
        again = false;
        refresh();
      }
    }
  }

  function listen() {
    const link = one("[data-link-state]");
    let stream = null;
    // What this page was made from; what changed before the stream began, or while nobody looked, is noticed by it.
    let last = { queue: document.body.dataset.queue, head: Number(document.body.dataset.head) };

    const say = (word, text) => {
      link.className = `link-state ${word}`;
      link.textContent = text;
    };
    const open = () => {
      stream = new EventSource(document.body.dataset.live);
      stream.onopen = () => say("on", "Up to date");
      stream.onerror = () => {
        say("off", "The authority does not answer; trying again");
        // A stream that was refused is not opened again by the browser: the session may have ended.
        if (stream.readyState === EventSource.CLOSED) {
          close();
          setTimeout(async () => {
            await refresh();
            if (!document.hidden && !stream) open();
          }, 3000);
        }
      };
      stream.onmessage = (event) => {
        const state = JSON.parse(event.data);
        say("on", "Up to date");
        const badge = one("[data-count]");
        badge.textContent = state.pending;
        badge.hidden = state.pending === 0;
        const waiting = location.pathname === "/";
        if (waiting ? state.queue !== last.queue : state.head !== last.head) refresh();
        last = state;
      };
    };
    const close = () => {
      stream?.close();
      stream = null;
    };
    // A browser opens few connections to one server; pages that nobody looks at give theirs back.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) close();
      else if (!stream) open();
    });
    window.addEventListener("pagehide", close);
    if (!document.hidden) open();
  }

  // --- decisions without leaving the page

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("[data-decide], [data-command]")) return;
    event.preventDefault();
    const card = form.closest("[data-key]");
    const fields = new URLSearchParams(new FormData(form));
    if (event.submitter?.name) fields.set(event.submitter.name, event.submitter.value);
    if (card.classList.contains("busy")) return;
    card.classList.add("busy");
    try {
      const answer = await fetch(form.action, { method: "POST", body: fields, headers: { Accept: "application/json" } });
      const words = await answer.json();
      tell(words.message ?? words.error, !answer.ok);
      if (answer.status === 401) {
        location.assign("/sign-in");
        return;
      }
      if (answer.ok) {
        form.reset();
        for (const details of all("details", card)) details.open = false;
        if (card.contains(document.activeElement)) card.focus();
      }
      await refresh();
    } catch {
      tell("The authority does not answer. Nothing is known of your decision; look again when it is back.", true);
    } finally {
      card.classList.remove("busy");
    }
  });

  // --- keyboard

  const pages = { 1: "/", 2: "/history", 3: "/agents", 4: "/audit" };

  function move(by) {
    const cards = all("article[data-key]");
    if (!cards.length) return;
    const current = cards.indexOf(document.activeElement?.closest?.("article[data-key]"));
    const next = cards[Math.min(Math.max(current + by, 0), cards.length - 1)];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
    if (event.target.matches?.("input, textarea, select")) {
      if (event.key === "Escape") event.target.closest("[data-key]")?.focus();
      return;
    }
    const card = document.activeElement?.closest?.("article[data-key]") ?? (all("article[data-key]").length === 1 ? one("article[data-key]") : null);
    const actions = {
      j: () => move(1),
      k: () => move(-1),
      a: () => card && one("button.approve", card)?.focus(),
      d: () => card && one("button.deny", card)?.focus(),
      c: () => card && one("textarea", card)?.focus(),
      o: () => card && one("h2 a", card)?.click(),
      "?": () => one("#help")?.showModal(),
    };
    if (pages[event.key] && document.body.dataset.live) location.assign(pages[event.key]);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });

  const help = one("[data-help]");
  if (help) {
    help.hidden = false;
    help.addEventListener("click", () => one("#help").showModal());
  }
  tellTimes();
  setInterval(tellTimes, 20000);
  if (document.body.dataset.live) listen();
})();
