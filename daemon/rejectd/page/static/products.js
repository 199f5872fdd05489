// Says what a threshold means while the slider moves: on the held-out good parts, and on the last parts of the line.
import { figure, show } from "./common.js";

function fill(template, values) {
  return template.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

for (const form of document.querySelectorAll("form.threshold")) {
  const { good, last, now } = JSON.parse(form.closest(".product").querySelector(".scores").textContent);
  const slide = form.querySelector(".slide");
  const exact = form.querySelector(".exact");
  const means = form.querySelector(".means");
  const above = (scores, threshold) => scores.filter((score) => score > threshold).length;

  const say = () => {
    const threshold = Number(exact.value);
    const share = good.length ? `${figure((100 * above(good, threshold)) / good.length, 3)} %` : "–";
    const sentences = [fill(means.dataset.good, { share, count: good.length })];
    const values = { count: last.length, rejects: above(last, threshold), now: above(last, now) };
    if (last.length) sentences.push(fill(means.dataset.last, values));
    show(means, sentences.join(" "));
  };
  slide.addEventListener("input", () => {
    exact.value = figure(Number(slide.value), 5);
    say();
  });
  exact.addEventListener("input", () => {
    slide.value = exact.value;
    say();
  });
  say();
}
