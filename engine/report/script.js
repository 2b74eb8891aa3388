"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cards = byId("cards");
  if (!cards) return;
  const all = [...cards.children];
  const EQUAL = ["group", "error", "size", "missing"];  // filters whose choice must equal the card's value
  const value = (id) => (byId(id) ? byId(id).value : "");

  function showLayer() {
    const chosen = document.querySelector("input[name=layer]:checked");
    const layer = chosen ? chosen.value : "";
    cards.dataset.layer = layer;
    for (const card of all) {
      let found = false;
      for (const picture of card.querySelectorAll(".layer")) {
        const on = picture.dataset.layer === layer;
        picture.classList.toggle("on", on);
        picture.style.opacity = value("opacity") / 100;
        found = found || on;
      }
      card.classList.toggle("absent", layer !== "" && !found);
    }
  }

  function filter() {
    const least = Number(value("least")) / 100, most = Number(value("most")) / 100;
    const tag = value("tag");
    let shown = 0;
    for (const card of all) {
      const data = card.dataset;
      // an image without a confidence ended in an error: only a narrower range hides it
      const inRange = data.confidence === undefined ? least === 0 && most === 1
        : Number(data.confidence) >= least - 1e-9 && Number(data.confidence) <= most + 1e-9;
      const keep = inRange && (!tag || data.tags.split(" ").includes(tag))
        && EQUAL.every((name) => !value(name) || data[name] === value(name));
      card.hidden = !keep;
      shown += keep;
    }
    byId("count").textContent = shown === all.length ? `${shown} images` : `${shown} of ${all.length} images`;
  }

  function order() {
    const [name, sign] = value("order").split(",");
    const sorted = [...all];
    if (name) {
      const key = (card) => (card.dataset[name] === undefined ? Infinity : Number(sign) * Number(card.dataset[name]));
      sorted.sort((a, b) => (key(a) === key(b) ? 0 : key(a) - key(b)));
    }
    cards.append(...sorted);
  }

  let enlarged = null;

  function enlarge(card) {
    enlarged = card;
    const large = byId("large");
    byId("large-name").textContent = card.querySelector(".name").textContent;
    large.querySelector(".about").replaceChildren(
      ...[...card.querySelectorAll("figcaption > :not(.name)")].map((one) => one.cloneNode(true)));
    const stack = card.querySelector(".stack");
    const pane = (name, layer) => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      const button = document.createElement("button"), copy = stack.cloneNode(true);
      for (const picture of copy.querySelectorAll(".layer")) {
        if (picture.dataset.layer !== layer) picture.remove();
      }
      caption.textContent = name;
      button.type = "button";
      button.className = "zoom";
      button.setAttribute("aria-label", `Enlarge: ${name}`);
      button.setAttribute("aria-pressed", "false");
      button.append(copy);
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(figure.classList.toggle("wide")));
        figure.scrollIntoView({ block: "nearest" });
      });
      figure.append(button, caption);
      return figure;
    };
    const layers = [...stack.querySelectorAll(".layer")];
    large.querySelector(".panes").replaceChildren(
      pane("Photograph", ""), ...layers.map((one) => pane(one.title, one.dataset.layer)));
    if (!large.open) large.showModal();
  }

  function step(by) {
    const shown = [...cards.children].filter((card) => !card.hidden && card.querySelector(".open"));
    enlarge(shown[(shown.indexOf(enlarged) + by + shown.length) % shown.length]);
  }

  for (const range of document.querySelectorAll("input[type=range]")) {
    range.addEventListener("input", () => {
      document.querySelector(`output[for=${range.id}]`).textContent = `${range.value} %`;
      range.id === "opacity" ? showLayer() : filter();
    });
  }
  for (const choice of document.querySelectorAll("input[name=layer]")) choice.addEventListener("change", showLayer);
  for (const id of ["tag", ...EQUAL]) if (byId(id)) byId(id).addEventListener("change", filter);
  byId("order").addEventListener("change", order);
  cards.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (button) enlarge(button.closest(".card"));
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => byId("large").close());
  byId("large").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  byId("large").addEventListener("close", () => enlarged.querySelector(".open").focus());
  byId("large").addEventListener("click", (event) => { if (event.target === byId("large")) byId("large").close(); });
  if (window.matchMedia("(max-width: 600px)").matches) document.querySelector(".filters").open = false;
  const chosen = document.querySelector("input[name=layer]:checked");
  if (chosen) chosen.closest("fieldset").scrollLeft = chosen.closest("label").offsetLeft - 60;  // a phone's row scrolls
  showLayer();
  filter();
})();
