"use strict";
// Recomputes what a threshold and a prevalence mean from the counts that the page holds.
{
  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("threshold-data").textContent);
  const last = data.thresholds.length - 1;
  const stored = data.thresholds.indexOf(data.threshold);
  const own = data.prevalence > 0 && data.prevalence < 1 ? data.prevalence : 0.5;
  const stated = data.stated_prevalence;
  const lowest = Math.min(0.001, own, stated ?? 1);
  const highest = Math.max(0.9, own, stated ?? 0);
  const steps = 400;
  const z = 1.959963984540054; // of a 95 % interval
  let place = stored;
  let prevalence = own;
  let spoken = 0;

  const logit = (p) => Math.log(p / (1 - p));
  const none = 0 / 0; // a share of nobody
  const share = (k, n) => (n > 0 ? k / n : none);
  const percent = (x) => (Number.isFinite(x) ? (100 * x).toFixed(1) + " %" : "not defined");
  const short = (x) => String(Number(x.toPrecision(3)));
  const people = (x) => (Number.isFinite(x) ? x.toFixed(x > 0 && x < 9.95 ? 1 : 0) : "not defined");

  // Wilson 1927, doi:10.1080/01621459.1927.10502953
  const wilson = (k, n) => {
    if (!n) return [none, none];
    const centre = k + (z * z) / 2;
    const reach = z * Math.sqrt((k * (n - k)) / n + (z * z) / 4);
    return [
      k ? Math.max((centre - reach) / (n + z * z), 0) : 0,
      k < n ? Math.min((centre + reach) / (n + z * z), 1) : 1,
    ];
  };

  const outcomes = () => {
    const tp = data.tp[place];
    const fp = data.fp[place];
    const fn = data.n_sick - tp;
    const tn = data.n_healthy - fp;
    const sensitivity = share(tp, data.n_sick);
    const specificity = share(tn, data.n_healthy);
    const found = prevalence * sensitivity;
    const missed = prevalence * (1 - sensitivity);
    const alarms = (1 - prevalence) * (1 - specificity);
    const cleared = (1 - prevalence) * specificity;
    const ppv = share(found, found + alarms);
    const npv = share(cleared, cleared + missed);
    return { tp, fp, fn, tn, sensitivity, specificity, ppv, npv, found, missed, alarms, cleared };
  };

  const write = (id, value, text) => {
    at(id).value = Number.isFinite(value) ? String(value) : "";
    at(id).textContent = text;
  };

  const placed = (x) => (3 + 94 * x).toFixed(2) + "%";

  const writeShare = (id, value, ends) => {
    write(id, value, percent(value));
    const drawn = Number.isFinite(value);
    at(id + "-dot").setAttribute("visibility", drawn ? "visible" : "hidden");
    if (drawn) at(id + "-dot").setAttribute("cx", placed(value));
    if (!ends) return;
    write(id + "-low", ends[0], (100 * ends[0]).toFixed(1));
    write(id + "-high", ends[1], (100 * ends[1]).toFixed(1));
    at(id + "-interval").hidden = !drawn;
    at(id + "-range").setAttribute("visibility", drawn ? "visible" : "hidden");
    if (drawn) at(id + "-range").setAttribute("x1", placed(ends[0]));
    if (drawn) at(id + "-range").setAttribute("x2", placed(ends[1]));
  };

  const writeThousand = (o) => {
    let left = 0;
    for (const name of ["found", "missed", "alarms", "cleared"]) {
      const width = Number.isFinite(o[name]) ? 100 * o[name] : 0;
      at("bar-" + name).setAttribute("x", left.toFixed(3) + "%");
      at("bar-" + name).setAttribute("width", width.toFixed(3) + "%");
      left += width;
      write("per-" + name, 1000 * o[name], people(1000 * o[name]));
    }
  };

  const sentence = (o) =>
    "At a threshold of " + short(data.thresholds[place]) + " and a prevalence of " +
    percent(prevalence) + ": of 1,000 patients, " + people(1000 * o.missed) +
    " sick are missed and " + people(1000 * o.alarms) + " healthy are false alarms.";

  // A screen reader should hear where the slider came to rest, not each step on the way.
  const speak = (text) => {
    clearTimeout(spoken);
    spoken = setTimeout(() => { at("threshold-sentence").textContent = text; }, 200);
  };

  const showControls = () => {
    const threshold = data.thresholds[place];
    at("threshold-slider").value = String(place);
    at("threshold-slider").setAttribute("aria-valuetext", "threshold " + short(threshold));
    at("threshold-number").value = String(Number(threshold.toPrecision(6)));
    const inside = Math.min(Math.max(prevalence, lowest), highest);
    const along = (logit(inside) - logit(lowest)) / (logit(highest) - logit(lowest));
    at("prevalence-slider").value = String(Math.round(steps * along));
    at("prevalence-slider").setAttribute("aria-valuetext", "prevalence " + percent(prevalence));
    at("prevalence-number").value = String(Number((100 * prevalence).toPrecision(3)));
    at("threshold-state").textContent = place === stored ? "Stored threshold" : "Exploring";
    at("exploring").classList.toggle("away", place !== stored);
  };

  const show = () => {
    const o = outcomes();
    write("threshold-shown", data.thresholds[place], short(data.thresholds[place]));
    writeShare("t-sensitivity", o.sensitivity, wilson(o.tp, data.n_sick));
    writeShare("t-specificity", o.specificity, wilson(o.tn, data.n_healthy));
    writeShare("t-ppv", o.ppv, null);
    writeShare("t-npv", o.npv, null);
    for (const name of ["tp", "fp", "fn", "tn"]) write("t-" + name, o[name], String(o[name]));
    writeThousand(o);
    if (at("roc-now") && Number.isFinite(o.sensitivity) && Number.isFinite(o.specificity)) {
      at("roc-now").setAttribute("cx", String(200 * (1 - o.specificity)));
      at("roc-now").setAttribute("cy", String(200 * (1 - o.sensitivity)));
    }
    showControls();
    return sentence(o);
  };

  const moveTo = (next) => {
    place = Math.min(Math.max(next, 0), last);
    speak(show());
  };

  const setPrevalence = (next) => {
    prevalence = Math.min(Math.max(next, lowest), highest);
    speak(show());
  };

  // Between two kept thresholds the decisions are those of the upper one.
  const typed = () => {
    const value = Number.parseFloat(at("threshold-number").value);
    const found = data.thresholds.findIndex((kept) => kept >= value);
    moveTo(Number.isNaN(value) ? place : found < 0 ? last : found);
  };

  const typedPercent = () => {
    const value = Number.parseFloat(at("prevalence-number").value) / 100;
    setPrevalence(Number.isNaN(value) ? prevalence : value);
  };

  const slid = () => {
    const along = Number(at("prevalence-slider").value) / steps;
    const value = logit(lowest) + along * (logit(highest) - logit(lowest));
    setPrevalence(1 / (1 + Math.exp(-value)));
  };

  at("prevalence-slider").max = String(steps);
  at("threshold-slider").addEventListener("input", (event) => moveTo(Number(event.target.value)));
  at("threshold-number").addEventListener("change", typed);
  at("threshold-reset").addEventListener("click", () => moveTo(stored));
  at("prevalence-slider").addEventListener("input", slid);
  at("prevalence-number").addEventListener("change", typedPercent);
  at("prevalence-own").addEventListener("click", () => setPrevalence(own));
  at("prevalence-stated")?.addEventListener("click", () => setPrevalence(stated));
  at("explorer").hidden = false;
  at("threshold-table").open = false;
  at("threshold-sentence").textContent = show();
}
