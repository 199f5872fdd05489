// What the scripts of the page share. No script or style comes from anywhere else.
export const texts = JSON.parse(document.getElementById("texts")?.textContent ?? "{}");

export function text(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function figure(value, digits = 4) {
  return value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString();
}

export function show(element, value) {
  if (element && element.textContent !== value) element.textContent = value;
}

// Asks the page for JSON within a time; an answer that is none of ours sends the browser to the log-in.
export async function ask(path, options = {}, seconds = 10) {
  const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(seconds * 1000), cache: "no-store" });
  if (answer.status === 401) {
    location.assign("/login");
    throw new Error("log in first");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? answer.statusText);
  return body;
}

export function send(path, body, seconds = 150) {
  const token = document.querySelector('meta[name="csrf"]').content;
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": token };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) }, seconds);
}
