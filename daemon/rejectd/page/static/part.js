// One part: the heat map's strength, the regions, labels, and keys for all of it.
import { send, show, text } from "./common.js";

const picture = document.getElementById("picture");
const heat = document.getElementById("heat");
const opacity = document.getElementById("opacity");
const remark = document.getElementById("remark");
const event_id = document.querySelector("[data-event]").dataset.event;
const SVG = "http://www.w3.org/2000/svg";

function drawRegions() {
  const boxes = document.getElementById("boxes");
  boxes.setAttribute("viewBox", `0 0 ${picture.naturalWidth} ${picture.naturalHeight}`);
  for (const [x, y, width, height] of JSON.parse(document.getElementById("regions").textContent)) {
    const box = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x, y, width, height })) box.setAttribute(name, value);
    boxes.append(box);
  }
}

function showHeat() {
  if (heat) heat.style.opacity = opacity.value / 100;
}

async function label(kind) {
  const trouble = document.getElementById("trouble");
  trouble.hidden = true;
  try {
    const said = await send(`/api/gallery/${event_id}/label`, { kind: kind || null, remark: kind ? remark.value : "" });
    const words = text("labelled_by", { kind: text(`label_${said.kind}`), who: said.who });
    show(document.getElementById("label"), said.kind ? words + (said.remark ? `: ${said.remark}` : "") : text("undone"));
  } catch (error) {
    show(trouble, error.message);
    trouble.hidden = false;
  }
}

const KEYS = {
  ArrowLeft: () => document.getElementById("later")?.click(),
  ArrowRight: () => document.getElementById("earlier")?.click(),
  r: () => remark && label("right"),
  f: () => remark && label("false"),
  e: () => remark && label("escape"),
  u: () => remark && label(""),
  h: () => {
    if (!opacity) return;
    opacity.value = opacity.value > 0 ? 0 : 70;
    showHeat();
  },
};

if (picture) picture.complete ? drawRegions() : picture.addEventListener("load", drawRegions);
opacity?.addEventListener("input", showHeat);
showHeat();
for (const button of document.querySelectorAll("[data-kind]")) {
  button.addEventListener("click", () => label(button.dataset.kind));
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  KEYS[event.key]?.();
});
