// How the demo's page says things: numbers, texts, times, and the elements that carry them. Pure but for `write`.

export const number = new Intl.NumberFormat("en");
const ago = new Intl.RelativeTimeFormat("en", { style: "narrow" });
const UNITS = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

export const plural = (count, noun) => `${number.format(count)} ${noun}${count === 1 ? "" : "s"}`;
const cut = (text, most) => text.slice(0, most).replace(/[\ud800-\udbff]$/, ""); // never half a character
export const shorten = (text, most) => (text.length > most ? `${cut(text, most)}…` : text);

// The server counts code points, JavaScript counts UTF-16 units.
export const codePoints = (text) => text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);

export function unitOf(text, point) {
  let at = 0;
  for (; point > 0 && at < text.length; point -= 1) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return at;
}

export function duration(ms) {
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.floor(ms / 1000) % 60} s`;
}

export function since(at) {
  const seconds = Math.round((Date.now() - Date.parse(at)) / 1000);
  if (seconds < 3) return "just now";
  const [size, unit] = UNITS.find(([size]) => seconds >= size);
  return ago.format(-Math.floor(seconds / size), unit);
}

export function clock(at) {
  const time = new Date(at);
  return `${time.toTimeString().slice(0, 8)}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const said = (tag, className, textContent) => make(tag, { className, textContent });

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
