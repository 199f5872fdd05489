// Keeps the live page up to date: asks once a second, and for a picture only when a new part has passed.
import { ask, figure, show, text } from "./common.js";

const PERIOD_MS = 1000;
const LOST_AFTER_MS = 4000;
const heat = document.getElementById("heat");
const shown = new Map(); // camera: what its picture shows now
let lastAnswer = Date.now();

heat.checked = localStorage.getItem("heat") !== "off";
heat.addEventListener("change", () => {
  localStorage.setItem("heat", heat.checked ? "on" : "off");
  refresh();
});

function field(card, name) {
  return card.querySelector(`[data-field="${name}"]`);
}

function showState(live) {
  document.getElementById("state").className = `state ${live.colour}`;
  show(document.getElementById("word"), text(`word_${live.word}`));
  const why = document.getElementById("why");
  if (why.dataset.shown !== JSON.stringify(live.why)) {
    why.dataset.shown = JSON.stringify(live.why);
    why.replaceChildren(...live.why.map((reason) => Object.assign(document.createElement("li"), { textContent: reason })));
  }
  for (const count of document.querySelectorAll("[data-count]")) {
    show(count, live.counts ? String(live.counts[count.dataset.count]) : "–");
  }
}

function showPicture(card, camera) {
  const image = field(card, "picture");
  if (!image) return;
  const last = camera.last;
  const wanted = last?.picture ? `${last.event_id}&heat=${heat.checked && last.heat}` : "";
  if (shown.get(camera.camera) === wanted) return;
  shown.set(camera.camera, wanted);
  const nothing = field(card, "nothing");
  if (!wanted) {
    show(nothing, text(last ? "no_picture" : "none_yet"));
    nothing.hidden = false;
    image.hidden = true;
    return;
  }
  const next = new Image(); // the old picture stays until the new one is there
  next.onload = () => {
    image.src = next.src;
    image.hidden = false;
    nothing.hidden = true;
  };
  const [event, ...rest] = wanted.split("&");
  next.src = `/api/cameras/${camera.camera}/picture?event_id=${encodeURIComponent(event)}&${rest.join("&")}`;
}

function showCamera(card, camera) {
  const last = camera.last;
  card.classList.toggle("paused", camera.paused);
  const doing = camera.paused ? text("camera_paused") : camera.state ? text(`camera_${camera.state}`) : "";
  show(field(card, "doing"), camera.reason ? `${doing}: ${camera.reason}` : doing);
  showPicture(card, camera);
  if (!last) return;
  const verdict = field(card, "verdict");
  verdict.className = `verdict ${last.decision}`;
  show(verdict, text(last.decision) + (last.cause ? `: ${text(`cause_${last.cause}`)}` : ""));
  const share = last.score !== null && last.threshold > 0 ? last.score / last.threshold : null;
  show(field(card, "score"), figure(last.score) + (share === null ? "" : ` (${Math.round(share * 100)} %)`));
  show(field(card, "threshold"), figure(last.threshold));
  show(field(card, "latency"), `${figure(last.latency_ms, 3)} ms`);
  show(field(card, "time"), new Date(last.captured_at).toLocaleTimeString(document.documentElement.lang));
  field(card, "meter").value = share ?? 0;
}

async function refresh() {
  const lost = document.getElementById("lost");
  try {
    const live = await ask("/api/live", {}, 8);
    lastAnswer = Date.now();
    lost.hidden = true;
    showState(live);
    const cards = new Map([...document.querySelectorAll("[data-camera]")].map((card) => [card.dataset.camera, card]));
    if (live.cameras.some((camera) => !cards.has(camera.camera))) location.reload(); // the service has come up
    for (const camera of live.cameras) showCamera(cards.get(camera.camera), camera);
  } catch {
    if (Date.now() - lastAnswer > LOST_AFTER_MS && lost.hidden) {
      const time = new Date(lastAnswer).toLocaleTimeString(document.documentElement.lang);
      show(lost, text("connection_lost", { time }));
      lost.hidden = false;
    }
  }
}

async function live() {
  if (!document.hidden) await refresh();
  setTimeout(live, PERIOD_MS);
}
live();
