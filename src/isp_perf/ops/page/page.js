"use strict";
const at = id => document.getElementById(id), root = document.documentElement;
let source, since = root.dataset.at, paused = false, seen = 0;
const say = (text, bad) => { const s = at("state"); if (s.textContent !== text) s.textContent = text; s.className = bad ? "bad" : "" };
const filter = () => {
  const wanted = at("find").value.toLowerCase();
  for (const row of document.querySelectorAll("tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
};
const show = event => {
  const news = JSON.parse(event.data);
  since = event.lastEventId; seen = Date.now();
  for (const [id, html] of Object.entries(news.cards || {})) { const card = at(id); if (card) card.innerHTML = html }
  for (const [id, text] of Object.entries(news.cells || {})) { const cell = at(id); if (cell) cell.textContent = text }
  for (const [id, path] of Object.entries(news.paths || {})) { const line = at("p-" + id); if (line) line.setAttribute("d", path) }
  if (news.cards && at("find").value) filter();
  say("live");
};
const close = () => { if (source) source.close(); source = null };
const open = () => {
  close();
  if (paused || document.hidden) return;
  const url = new URL(location.href);
  url.searchParams.set("since", since);
  url.hash = "";
  source = new EventSource(url);
  source.onmessage = show;
  source.onopen = () => { seen = Date.now() };
  source.addEventListener("again", open);
  source.onerror = () => { if (source && source.readyState === 2) setTimeout(open, 2000) };
};
const pause = () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
  if (paused) { close(); say("paused") } else open();
};
const scope = () => {
  const url = new URL(location.href);
  if (url.searchParams.get("scope") === "worker") url.searchParams.delete("scope"); else url.searchParams.set("scope", "worker");
  location.href = url;
};
const help = () => at("help").showModal();
const keys = { "/": () => at("find").focus(), p: pause, w: scope, "?": help };
at("pause").onclick = pause; at("scope").onclick = scope; at("ask").onclick = help; at("find").oninput = filter;
at("done").onclick = () => at("help").close();
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && event.target.id === "find") { at("find").value = ""; filter(); at("find").blur(); return }
  if (!at("short").checked || event.ctrlKey || event.metaKey || event.altKey || event.target.id === "find" || at("help").open) return;
  if (keys[event.key]) { event.preventDefault(); keys[event.key]() }
});
document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
setInterval(() => { if (!paused && !document.hidden && Date.now() - seen > 5000) say("no answer from the service", true) }, 1000);
root.classList.add("live");
open();
