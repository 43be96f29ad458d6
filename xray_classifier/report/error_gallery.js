"use strict";
// Turns the films of the gallery into buttons that open them large, one after the other.
{
  const at = (id) => document.getElementById(id);
  const gallery = at("gallery");
  const dialog = at("film-dialog");
  const cases = [...gallery.querySelectorAll(".case")];
  let open = 0;
  let marked = false;

  const withMap = (item) => item.querySelector(".marked") !== null;

  const show = () => {
    const item = cases[open];
    const picture = item.querySelector(marked && withMap(item) ? ".marked" : ".plain");
    at("film-holder").replaceChildren(picture.cloneNode());
    at("film-title").textContent = item.querySelector(".path").textContent;
    const words = [".badge", ".chance-of", ".note bdi"].map((name) => item.querySelector(name));
    at("film-words").textContent = words.filter(Boolean).map((node) => node.textContent).join(", ");
    at("film-place").textContent = `${open + 1} of ${cases.length}`;
    at("film-map").hidden = !withMap(item);
    at("film-map").setAttribute("aria-pressed", String(marked));
  };

  const step = (by) => {
    open = (open + by + cases.length) % cases.length;
    show();
  };

  const mark = (on) => {
    marked = on;
    gallery.classList.toggle("show-marked", on);
    if (at("map-toggle")) at("map-toggle").checked = on;
  };

  for (const [place, item] of cases.entries()) {
    const button = document.createElement("button");
    const pictures = item.querySelector(".pictures");
    button.type = "button";
    button.className = "enlarge";
    button.setAttribute("aria-haspopup", "dialog");
    button.setAttribute("aria-label", "Enlarge: " + item.querySelector(".plain").alt);
    pictures.replaceWith(button);
    button.append(pictures);
    button.addEventListener("click", () => {
      open = place;
      show();
      dialog.showModal();
    });
  }

  at("film-before").addEventListener("click", () => step(-1));
  at("film-after").addEventListener("click", () => step(1));
  at("film-close").addEventListener("click", () => dialog.close());
  at("film-map").addEventListener("click", () => { mark(!marked); show(); });
  at("map-toggle")?.addEventListener("change", (event) => mark(event.target.checked));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  gallery.classList.add("live");
}
