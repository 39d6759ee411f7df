// One job, opened: its outcome, arguments, timeline and facts as elements. Pure: a job and its events in, elements out.

import { clock, codePoints, make, number, plural, said, shorten, unitOf } from "./words.js";

export const detail = (job, { events, after }) => [
  ...outcome(job), ...line("Arguments", ...given(job.args)), ...line("Timeline", timeline(events, after)),
  ...line("Job", said("code", "", job.id), facts(job)),
];

export function brief(args) {
  if (!args || typeof args !== "object") return String(args ?? "");
  const short = (what) => (typeof what === "string" ? `“${shorten(what, 32)}”` : shorten(JSON.stringify(what), 60));
  return Object.entries(args).map(([name, what]) => `${name} ${short(what)}`).join(", ");
}

const line = (name, ...parts) => [said("dt", "", name), make("dd", {}, ...parts)];
const given = (args) =>
  Object.entries(args ?? {}).map(([name, what]) => make("div", {}, said("b", "", `${name} `), value(what)));
const facts = ({ attempt, max_attempts, worker }) =>
  [attempt && `, attempt ${attempt}`, max_attempts && ` of ${max_attempts}`, worker && `, on ${worker}`]
    .filter(Boolean).join("");

function outcome({ task, state, result, error, args }) {
  if (state === "succeeded") return line("Result", ...(task === "lcs" ? match(result, args) : [value(result)]));
  if (!error) return [];
  const traceback = error.traceback ? [make("pre", { tabIndex: 0, textContent: error.traceback })] : [];
  return line("Error", said("p", "error", `${error.type}: ${error.message}`), ...traceback);
}

function value(what) {
  const text = typeof what === "string" ? what : JSON.stringify(what, null, 1) ?? "null";
  const size = text.length > 300 ? ` ${plural(codePoints(text), "character")}` : "";
  return make("span", {}, said("code", "", shorten(text, 300)), said("span", "note", size));
}

function match(result, args) {
  if (![result?.text, args?.a, args?.b].every((text) => typeof text === "string")) return [value(result)];
  if (!result.length) return ["The texts have no character in common."];
  const place = (name, text, point) => {
    const start = unitOf(text, point);
    const end = start + result.text.length;
    const before = text.slice(Math.max(0, start - 40), start).replace(/^[\udc00-\udfff]/, "");
    const after = shorten(text.slice(end, end + 80), 40);
    return [said("p", "note", `In the ${name} text from character ${number.format(point)}`),
      make("pre", {}, start > 40 ? "…" : "", before, said("mark", "", shorten(result.text, 400)), after)];
  };
  return [make("p", {}, said("b", "", plural(result.length, "character")), " in common"),
    ...place("first", args.a, result.a_at), ...place("second", args.b, result.b_at)];
}

function timeline(events, after) {
  const shown = events.filter(({ kind }, place) => kind !== "progress" || events[place + 1]?.kind !== "progress");
  return make("ol", { className: "events" }, ...shown.map(({ at, kind, data }) => make("li", {},
    make("time", { dateTime: at, title: new Date(at).toLocaleString(), textContent: clock(at) }),
    said("span", "", kind), said("span", "note", words(kind, data ?? {})))), after ? said("li", "note", "and more") : "");
}

function words(kind, data) {
  if (kind === "progress") return `${data.value}${data.total ? ` of ${data.total}` : ""} ${data.note ?? ""}`;
  if (kind === "log") return shorten(String(data.text), 300);
  const plain = Object.entries(data).filter(([, what]) => what !== null && typeof what !== "object");
  return plain.map(([name, what]) => `${name} ${shorten(String(what), 120)}`).join(", ");
}
