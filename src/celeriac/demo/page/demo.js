// The demo's page: submits jobs over the HTTP API and shows what becomes of them. No framework; people's text only ever
// becomes text nodes. One loop asks the server once a second while the tab is visible and updates the rows in place.
// New rows wait while the pointer or the focus is in the list, so that nothing moves under either.

import { brief, detail } from "./detail.js";
import { codePoints, duration, make, number, plural, said, since, write } from "./words.js";

const LIVE = ["scheduled", "queued", "running", "retrying"];
const $ = (id) => document.getElementById(id);
const list = $("list");
const rows = new Map(); // job id -> its row: the elements, the job as last seen, what the detail shows
const mine = new Map(); // job id -> the state last announced, for jobs this page submitted or moved
let limit = 20;
let timer;

// ---- the API and its errors

async function call(method, path, body = {}) {
  const json = { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`/api/v1${path}`, { method, ...(method === "GET" ? {} : json) });
  const data = await response.json().catch(() => null);
  if (response.ok) return data;
  const { title = `The server answered ${response.status}`, detail, errors } = data ?? {};
  throw Object.assign(new Error(title), { status: response.status, detail, faults: errors ?? [] });
}

const about = (error) => (error.status ? error.message : "The server cannot be reached");

function show(error) {
  if (error.status === 401) return signedOut(true);
  const close = make("button", { type: "button", textContent: "Close", onclick: () => { $("toast").hidden = true; } });
  const faults = (error.faults ?? []).map(({ path, message }) => said("li", "", `${path} ${message}`));
  const detail = error.status ? error.detail ?? "" : "Is it still running? Try again in a moment.";
  $("toast").replaceChildren(said("b", "", about(error)), close, said("p", "", detail), make("ul", {}, ...faults));
  $("toast").hidden = false;
}

function signedOut(is) {
  $("signed-out").hidden = !is;
  $("demo").hidden = is;
  if (is) write($("status"), "Signed out");
}

// ---- the loop

async function refresh() {
  clearTimeout(timer);
  const turn = (timer = setTimeout(refresh, 15_000)); // should this turn hang
  if (document.hidden) return;
  try {
    const [page, { queues }, { workers }] =
      await Promise.all([`/jobs?limit=${limit}`, "/queues", "/workers"].map((path) => call("GET", path)));
    if (timer !== turn) return;
    signedOut(false);
    showStatus(queues, workers);
    showPage(page);
    await Promise.all([...rows.values()].filter((row) => row.open && !inTheWay(row)).map(loadDetail));
  } catch (error) {
    if (error.status === 401) signedOut(true);
    else $("status").replaceChildren(said("span", "off", `${about(error)}: trying again`));
  }
  if (timer !== turn) return;
  clearTimeout(timer);
  if ($("signed-out").hidden) timer = setTimeout(refresh, 1000);
}

function showStatus(queues, workers) {
  const online = workers.filter((worker) => worker.online).length;
  const parts = queues.map(({ name, paused, counts: { queued = 0, retrying = 0, scheduled = 0, running = 0 } }) => {
    const waiting = number.format(queued + retrying + scheduled);
    return make("span", {}, said("b", "", name),
      `${paused ? " paused," : ""} ${waiting} waiting, ${number.format(running)} running`);
  });
  parts.unshift(online
    ? make("span", { className: "on" }, said("b", "", plural(online, "worker")), " online")
    : said("span", "off", "No worker online: jobs wait until one starts"));
  const text = parts.map((part) => part.textContent).join("");
  if ($("status").textContent !== text) $("status").replaceChildren(...parts);
}

const busy = () => list.matches(":focus-within") || (matchMedia("(hover: hover)").matches && list.matches(":hover"));

function showPage({ jobs, after }) {
  const listed = new Set(jobs.map(({ id }) => id));
  const fresh = jobs.filter(({ id }) => !rows.has(id)).length;
  const held = rows.size > 0 && busy();
  write($("fresh"), plural(fresh, "new job"));
  $("fresh").classList.toggle("some", held && fresh > 0);
  for (const row of rows.values()) {
    if (listed.has(row.id)) continue;
    if (!row.open && !held) drop(row);
    else if (LIVE.includes(row.job.state)) row.shown = ""; // off the page: the detail keeps it current
  }
  jobs.forEach((job, place) => {
    if (!rows.has(job.id) && held) return;
    if (!rows.has(job.id)) list.insertBefore(makeRow(job).item, list.children[place] ?? null);
    showRow(rows.get(job.id), job);
  });
  $("empty").hidden = rows.size > 0;
  $("older").hidden = !after || limit >= 100;
}

// ---- one row

function makeRow({ id, task, args }) {
  const row = { id, open: false, shown: "" };
  for (const name of ["state", "what", "queue", "meter", "spent"]) row[name] = said("span", name, "");
  row.bar = make("progress");
  row.time = said("time", "when", "");
  row.what.append(said("b", "", task), brief(args));
  row.meter.append(row.bar, row.spent);
  row.toggle = make("button", { type: "button", className: "row", ariaExpanded: "false", onclick: () => toggle(row) },
    row.state, row.what, row.queue, row.meter, row.time);
  row.act = make("button", { type: "button", className: "act", onclick: () => act(row) });
  row.detail = make("dl", { className: "detail", id: `job-${id}`, hidden: true });
  row.toggle.setAttribute("aria-controls", row.detail.id);
  row.item = make("li", {}, row.toggle, row.act, row.detail);
  rows.set(id, row);
  return row;
}

function drop(row) {
  row.item.remove();
  rows.delete(row.id);
}

function showRow(row, job) {
  const { task, state, progress, created_at, started_at, finished_at } = job;
  row.job = job;
  row.item.dataset.state = state;
  write(row.state, state);
  write(row.queue, job.queue);
  write(row.time, since(created_at));
  Object.assign(row.time, { dateTime: created_at, title: `submitted ${new Date(created_at).toLocaleString()}` });
  const measured = state === "running" && progress?.total > 0;
  row.bar.hidden = !measured;
  row.meter.classList.toggle("bare", !measured);
  if (measured) Object.assign(row.bar, { max: progress.total, value: progress.value, title: progress.note ?? "" });
  const end = finished_at ? Date.parse(finished_at) : Date.now();
  const spent = started_at && (finished_at || state === "running") ? duration(end - Date.parse(started_at)) : "";
  write(row.spent, measured ? `${Math.floor((100 * progress.value) / progress.total)} %` : spent);
  showAct(row);
  if (mine.has(row.id) && mine.get(row.id) !== state && !LIVE.includes(state)) write($("say"), `${task} ${state}.`);
  if (mine.has(row.id)) mine.set(row.id, state);
}

function showAct(row) {
  const { task, state } = row.job;
  const verb = LIVE.includes(state) ? "Cancel" : state === "succeeded" ? "" : "Retry";
  if (row.verb !== verb) {
    if (!verb && document.activeElement === row.act) row.toggle.focus();
    row.calmUntil = row.verb === undefined ? 0 : Date.now() + 800; // a click meant for Cancel must not hit Retry
    Object.assign(row, { verb, asked: false });
    row.act.hidden = !verb;
  }
  write(row.act, row.asked ? `${verb}…` : verb);
  row.act.ariaLabel = `${verb}${row.asked ? " asked for" : ""}: ${task}`;
  row.act.ariaDisabled = String(Boolean(row.asked));
}

async function act(row) {
  if (row.asked || Date.now() < row.calmUntil) return;
  const { verb } = row;
  row.asked = true;
  mine.set(row.id, "");
  showAct(row);
  try {
    const path = `/jobs/${encodeURIComponent(row.id)}`;
    await (verb === "Cancel" ? call("PUT", `${path}/cancellation`) : call("POST", `${path}/retries`));
    await refresh();
  } catch (error) {
    row.asked = false;
    show(error);
  }
  if (verb === "Retry") row.asked = false; // it may have failed again already
  showAct(row);
}

// ---- one job, opened

async function toggle(row) {
  row.open = !row.open;
  row.toggle.ariaExpanded = String(row.open);
  if (row.open) await loadDetail(row).catch(show);
  row.detail.hidden = !row.open;
}

// A detail that grows would push the rows below it: it waits while the pointer or the focus is in one of them.
const inTheWay = (row) => busy() && !row.item.matches(":hover, :focus-within");

async function loadDetail(row) {
  const version = `${row.job.number} ${row.job.state}`;
  if (row.shown === version) return;
  const path = `/jobs/${encodeURIComponent(row.id)}`;
  try {
    const [job, history] = await Promise.all([call("GET", path), call("GET", `${path}/events`)]);
    row.shown = version;
    showRow(row, job);
    row.detail.replaceChildren(...detail(job, history));
  } catch (error) {
    if (error.status !== 404) throw error;
    drop(row); // pruned meanwhile
  }
}

// ---- the form and the samples

const NAMES = ("oak river stone amber quiet lantern winter harbour copper meadow willow ember distant silver garden " +
  "thunder hollow morning velvet orchard").split(" ");
const PLANTED = " — planted in both texts, this is the one long passage that they share — ";

function prose(size) {
  let text = "";
  while (text.length < size) text += `${NAMES[Math.floor(Math.random() * NAMES.length)]} `;
  const at = Math.floor(Math.random() * (size - PLANTED.length));
  return (text.slice(0, at) + PLANTED + text.slice(at)).slice(0, size);
}

const SAMPLES = {
  sentences: () => ["The quick brown fox jumps over the lazy dog, then sleeps.",
    "Everyone saw how the brown fox jumps over the fence at night."],
  letters: () => ["Grüße aus 東京: 🍣🍜🍡 und ein schöner Tag!", "今日は東京: 🍣🍜🍡 を食べました。"],
  large: () => [prose(200_000), prose(200_000)],
};

function measure() {
  const sizes = ["a", "b"].map((id) => codePoints($(id).value));
  sizes.forEach((size, place) => write($(place ? "b-size" : "a-size"), plural(size, "character")));
  write($("route"), Math.max(...sizes) > 1000 ? "large" : "small");
}

async function submit(button, task, args) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    const job = await call("POST", "/jobs", { task, args });
    mine.set(job.id, job.state);
    $("toast").hidden = true;
    write($("say"), `${task} submitted to the queue ${job.queue}.`);
    await refresh();
  } catch (error) { show(error); }
  button.ariaDisabled = "false";
}

$("lcs").addEventListener("input", measure);
$("lcs").addEventListener("click", ({ target }) => {
  if (!target.dataset.sample) return;
  [$("a").value, $("b").value] = SAMPLES[target.dataset.sample]();
  measure();
});
$("lcs").addEventListener("change", async ({ target }) => {
  if (!target.files?.length) return;
  $(target.dataset.into).value = await target.files[0].text();
  target.value = "";
  measure();
});
$("lcs").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(event.submitter, "lcs", { a: $("a").value, b: $("b").value });
});
for (const button of document.querySelectorAll("[data-task]")) {
  button.addEventListener("click", () => submit(button, button.dataset.task, JSON.parse(button.dataset.args)));
}
for (const id of ["fresh", "again"]) $(id).addEventListener("click", refresh);
$("older").addEventListener("click", () => { limit += 20; refresh(); });
document.addEventListener("visibilitychange", refresh);
measure();
refresh();
