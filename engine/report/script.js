"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cards = byId("cards");
  if (!cards) return;
  const all = [...cards.children];
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
    const tag = value("tag"), group = value("group"), error = value("error");
    let shown = 0;
    for (const card of all) {
      const data = card.dataset;
      // an image without a confidence ended in an error: only a narrower range hides it
      const inRange = data.confidence === undefined ? least === 0 && most === 1
        : Number(data.confidence) >= least - 1e-9 && Number(data.confidence) <= most + 1e-9;
      const keep = inRange && (!tag || data.tags.split(" ").includes(tag)) && (!group || data.group === group)
        && (!error || data.error === error);
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

  function enlarge(card) {
    const panes = byId("large").querySelector(".panes");
    byId("large").querySelector("h3").textContent = card.querySelector(".name").textContent;
    const stack = card.querySelector(".stack");
    const pane = (name, layer) => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      const copy = stack.cloneNode(true);
      for (const picture of copy.querySelectorAll(".layer")) {
        if (picture.dataset.layer !== layer) picture.remove();
      }
      caption.textContent = name;
      figure.append(copy, caption);
      return figure;
    };
    const layers = [...stack.querySelectorAll(".layer")];
    panes.replaceChildren(pane("Photograph", ""), ...layers.map((one) => pane(one.title, one.dataset.layer)));
    byId("large").showModal();
  }

  for (const range of document.querySelectorAll("input[type=range]")) {
    range.addEventListener("input", () => {
      document.querySelector(`output[for=${range.id}]`).textContent = `${range.value} %`;
      range.id === "opacity" ? showLayer() : filter();
    });
  }
  for (const choice of document.querySelectorAll("input[name=layer]")) choice.addEventListener("change", showLayer);
  for (const id of ["tag", "group", "error"]) if (byId(id)) byId(id).addEventListener("change", filter);
  byId("order").addEventListener("change", order);
  cards.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (button) enlarge(button.closest(".card"));
  });
  byId("large").addEventListener("click", (event) => { if (event.target === byId("large")) byId("large").close(); });
  if (window.matchMedia("(max-width: 600px)").matches) document.querySelector(".filters").open = false;
  const chosen = document.querySelector("input[name=layer]:checked");
  if (chosen) chosen.closest("fieldset").scrollLeft = chosen.closest("label").offsetLeft - 60;  // a phone's row scrolls
  showLayer();
  filter();
})();
