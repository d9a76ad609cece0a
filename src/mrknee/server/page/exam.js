/** The view of an exam: viewports, and why the network says what it says. */

import { cancelled, examPath, getJson, Problem } from "./api.js";
import { element } from "./dom.js";
import { Explanation } from "./explanation.js";
import { findingSwitch } from "./findings.js";
import { HeatMaps } from "./heat.js";
import { Masks } from "./masks.js";
import { notesPanel } from "./notes.js";
import { address, go, remember, settings } from "./state.js";
import { imageTools } from "./tools.js";
import { defaultLayout, Viewer } from "./viewer.js";
import { WhatIf } from "./whatif.js";
import { answerPanel, heatPanel, remarksPanel } from "./why.js";
import { capital, effect } from "./words.js";

const PATIENCE_MS = 50; // how long the first image waits for the explanation's decisive slice

export class ExamView {
  /**
   * @param {HTMLElement} root
   * @param {import("./state.js").Place} place
   * @param {Object} page what all views share: model, announce, fail, neighbours
   */
  constructor(root, place, page) {
    Object.assign(this, { root, place, page, key: place.key, model: page.model });
    this.ending = new AbortController();
    this.explanation = null;
    this.heat = null;
    this.held = false; // whether the key that hides the heat is held
    this.showHeat = settings.get("heat", "on") === "on";
    this.showOutline = settings.get("outline", "on") === "on";
    this.opacity = Number(settings.get("opacity", "0.7"));
    const { findings } = this.model;
    this.finding = findings.includes(place.query.finding) ? place.query.finding : null;
  }

  async start() {
    const { signal } = this.ending;
    this.root.replaceChildren(element("p", { class: "waiting", role: "status" }, "Opening the exam\u2026"));
    try {
      this.exam = await getJson(examPath(this.key), signal);
    } catch (error) {
      this.#fail(error);
      return;
    }
    document.title = `${this.exam.id} \u2013 mrknee`;
    for (const series of this.exam.series) series.title = capital(series.title);
    this.masks = new Masks(this.key, this.exam.series);
    this.#build();
    this.explaining = this.#explain();
    const early = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
    await Promise.race([this.explaining, early]);
    if (signal.aborted) return;
    const asked = this.#askedSlice();
    await this.viewer.showFirst({ ...(this.explanation ? this.#decisive() : {}), ...asked });
    if (signal.aborted) return;
    await this.#loadRest();
  }

  async #loadRest() {
    try {
      await this.viewer.loadAll();
      this.root.dataset.loaded = "stacks";
      await this.explaining;
      if (!this.heat) return;
      for (const finding of this.model.findings) await this.#loadHeat(finding);
      this.root.dataset.loaded = "stacks heat";
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The slice that the address asks for. */
  #askedSlice() {
    const asked = /^(.+)\.(\d+)$/.exec(this.place.query.at ?? "");
    const number = this.exam.series.findIndex(({ name }) => name === asked?.[1]);
    if (number < 0) return {};
    this.viewer.activate(number);
    this.viewer.current.moved = true;
    this.viewer.current.show(Number(asked[2]) - 1);
    return { [asked[1]]: Number(asked[2]) - 1 };
  }

  #build() {
    const callbacks = {
      overlay: (viewport) => this.#overlay(viewport),
      readout: (viewport, row, col) => this.#readout(viewport, row, col),
      caption: (exam) => caption(exam),
      onSlice: (viewport) => this.#changed(viewport),
      onActive: (viewport) => this.#changed(viewport),
      onLinked: (viewports) => this.#announceLinked(viewports),
      onError: (error) => this.#fail(error),
    };
    this.viewer = new Viewer(this.exam, callbacks, this.ending.signal);
    this.switch = findingSwitch(this.model, (finding) => this.select(finding));
    this.tools = imageTools(this.viewer, (command) => this.run(command), (layout) => this.setLayout(layout));
    this.answer = element("div", { class: "answer" });
    this.why = element("aside", { class: "why", "aria-label": "Why" }, this.answer);
    this.problem = element("div", { class: "problems", role: "alert" });
    this.heading = element("h1", { title: this.exam.id }, this.exam.id);
    this.steps = element("div", { class: "steps" });
    const origin = [this.exam.data_set, this.exam.split].filter(Boolean).join(" / ");
    this.root.replaceChildren(
      element("div", { class: "exam" },
        element("header", { class: "exam-head" },
          element("div", { class: "exam-name" }, this.heading, element("span", { class: "origin" }, origin)),
          this.steps,
          this.switch.node),
        this.problem,
        element("div", { class: "desk" },
          element("div", { class: "stage" }, this.viewer.node, this.tools.node),
          this.why)),
    );
    this.setLayout(this.place.query.layout ?? defaultLayout(this.exam.series.length), { keep: true });
    this.why.append(element("p", { class: "waiting", role: "status" },
      this.model.explainable ? "Computing the explanation\u2026" : "Computing the prediction\u2026"));
    this.viewer.focus();
    this.neighbours = {};
    this.#showSteps();
    this.findingNeighbours = this.#addSteps();
    // after a click with the mouse, keys belong to the viewports again
    this.root.addEventListener("click", (event) => {
      const control = event.target.closest("button, summary, input[type=checkbox], input[type=radio], input[type=range]");
      if (control && event.detail > 0 && !control.closest("dialog, .notes")) this.viewer.focus();
    }, { signal: this.ending.signal });
  }

  async #addSteps() {
    const { previous, next } = await this.page.neighbours(this.key);
    this.neighbours = { previous, next };
    this.#showSteps();
  }

  /** Links to the exams before and after; both have their places from the start. */
  #showSteps() {
    const { previous, next } = this.neighbours;
    const step = (key, text, label) =>
      element("a", { class: "button", href: key && address("exam", key, this.#shared()), role: key ? null : "link", "aria-disabled": key ? null : "true", "aria-label": label }, text);
    this.steps.replaceChildren(step(previous, "\u2039 Previous", "Previous exam"), step(next, "Next \u203a", "Next exam"));
  }

  /** The part of the state that the next exam keeps. */
  #shared() {
    return { finding: this.finding, layout: this.viewer.layout === defaultLayout(this.exam.series.length) ? "" : this.viewer.layout };
  }

  // explanation

  async #explain() {
    const { signal } = this.ending;
    try {
      const part = this.model.explainable ? "explanation" : "prediction";
      this.explanation = new Explanation(await getJson(examPath(this.key, part), signal), this.model);
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (signal.aborted) return;
    const { maps, cell_scale: scale } = this.explanation;
    if (maps) this.heat = new HeatMaps(this.key, maps, scale);
    this.finding ??= this.explanation.mostStriking(this.exam.labels);
    this.whatIf = new WhatIf(this.key, this.exam, this.model, () => this.#whatIfChanged(), signal);
    this.switch.setProbabilities(this.explanation.probabilities);
    this.select(this.finding, { announce: false });
  }

  async #loadHeat(finding) {
    const { signal } = this.ending;
    await Promise.all(Object.keys(this.heat.frames).map((series) => this.heat.load(series, finding, signal)));
  }

  /** Series -> the slice that decides about the selected finding. */
  #decisive() {
    if (!this.explanation?.maps) return {};
    return Object.fromEntries(
      this.exam.series
        .map(({ name }) => [name, this.explanation.ordered(this.finding, name)[0]])
        .filter(([, index]) => index !== undefined));
  }

  /** Selects a finding: scores, heat maps and texts follow; each viewport shows its decisive slice. */
  select(finding, { announce = true } = {}) {
    const again = announce && this.finding === finding;
    this.finding = finding;
    this.switch.select(finding);
    if (!this.explanation) return;
    const title = this.model.titles[finding] ?? finding;
    const largest = this.explanation.largestScore(finding);
    const decisive = this.#decisive();
    for (const viewport of this.viewer.viewports) {
      const name = viewport.series.name;
      viewport.strip.setScores(this.explanation.scores(finding, name), largest, decisive[name] ?? -1, title);
      if (name in decisive && (!viewport.moved || (announce && !again))) viewport.show(decisive[name]);
    }
    if (!again && (announce || !this.viewer.current.moved)) this.#activateDecisive();
    this.#showWhy();
    this.#loadMaps(finding);
    this.viewer.redraw();
    if (announce) this.page.announce(`${capital(title)}: probability ${this.explanation.probabilityText(finding)}`);
    this.#remember();
  }

  /** Loads heat maps and lesion masks of a finding, and shows them. */
  async #loadMaps(finding) {
    const { signal } = this.ending;
    const shown = () => this.viewer.redraw();
    try {
      await Promise.all([
        this.heat && this.#loadHeat(finding).then(shown),
        this.masks.load(finding, signal).then(shown),
      ]);
      if (this.finding === finding) this.#showHit();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Makes the series of the decisive slice the active one. */
  #activateDecisive() {
    const place = this.explanation.most(this.finding, this.explanation.sign(this.finding));
    const number = this.exam.series.findIndex(({ name }) => name === place?.series);
    if (number >= 0) this.viewer.activate(number, { focus: this.viewer.node.contains(document.activeElement) });
  }

  #showWhy() {
    this.hit = element("p", { class: "hit" });
    this.#showHit();
    const parts = [
      answerPanel(this.explanation, this.finding, this.exam, (place) => this.jump(place)),
      this.heat && heatPanel(this),
      this.explanation.maps && this.whatIf.panel(this.finding, this.explanation),
      this.model.notes && notesPanel(this),
      remarksPanel(this.explanation, this.exam),
    ];
    const scrolled = this.why.scrollTop;
    this.why.replaceChildren(...parts.filter(Boolean));
    this.why.scrollTop = scrolled;
  }

  #showHit() {
    const text = this.heat && this.masks.any(this.finding) ? this.#hitText() : null;
    this.hit.textContent = text ?? "";
    this.hit.hidden = !text;
  }

  /** Whether the slice that adds most, and its hottest cell, meet the lesion; null while loading. */
  #hitText() {
    const { finding, heat, masks } = this;
    const place = this.explanation.most(finding, 1);
    if (!place) return null;
    const peak = heat.peak(place.series, finding, place.slice, 1);
    if (!peak || !masks.slice(place.series, finding, 0)) return null;
    const slices = masks.slices(place.series, finding);
    if (slices.length === 0) return `Miss: ${this.#title(place.series)}, which adds most, does not show the lesion.`;
    const name = `${this.#title(place.series)} ${place.slice + 1}`;
    const range = slices.length === 1 ? `slice ${slices[0] + 1}` : `slices ${slices[0] + 1} to ${slices.at(-1) + 1}`;
    if (!slices.includes(place.slice)) {
      return `Miss: ${name}, which adds most, does not contain the lesion (${range}).`;
    }
    return masks.contains(place.series, finding, place.slice, peak.row, peak.col)
      ? `Hit: ${name}, which adds most, contains the lesion, and its hottest cell lies in it.`
      : `Near miss: ${name}, which adds most, contains the lesion, but the centre of its hottest cell lies outside.`;
  }

  #title(name) {
    return this.exam.series.find((one) => one.name === name)?.title ?? name;
  }

  // viewports

  #overlay(viewport) {
    if (!this.finding) return null;
    const { series, index } = viewport;
    const frame = this.heat?.frames[series.name];
    const shown = this.showHeat && !this.held && frame ? this.heat.picture(series.name, this.finding, index) : null;
    const first = this.explanation?.maps && this.explanation.ordered(this.finding, series.name)[0];
    return {
      frame,
      heat: shown,
      opacity: this.opacity,
      mark: shown && first === index ? this.#ring(series.name, index) : null,
      score: this.#scoreOf(viewport),
      outline: this.showOutline && !this.held ? this.masks.outline(series.name, this.finding, index) : null,
    };
  }

  /** The cell of a slice with the largest effect, in the direction in which the slice acts. */
  #ring(series, index) {
    const sign = this.explanation.signOf(this.finding, series);
    const peak = this.heat.peak(series, this.finding, index, sign);
    return peak && { ...peak, sign };
  }

  /** The score of the shown slice, and whether it decides. */
  #scoreOf({ series, index }) {
    const value = this.explanation?.scores(this.finding, series.name)?.[index];
    if (value === undefined) return null;
    const place = this.explanation.most(this.finding, this.explanation.sign(this.finding));
    return { value, decisive: place?.series === series.name && place.slice === index };
  }

  #readout(viewport, row, col) {
    if (!this.heat || !this.finding || !this.heat.frames[viewport.series.name]) return null;
    return this.heat.at(viewport.series.name, this.finding, viewport.index, row, col);
  }

  /** What the active viewport shows, in words. */
  sentence(viewport = this.viewer.current) {
    const { series, index, stack } = viewport;
    const where = `${series.title} ${index + 1} of ${stack.slices}`;
    const score = this.explanation?.scores(this.finding, series.name)?.[index];
    if (score === undefined) return where;
    return `${where}, ${effect(score, this.model.titles[this.finding] ?? this.finding)}`;
  }

  #changed(viewport) {
    if (!this.viewer || viewport !== this.viewer.current) return;
    const sentence = this.sentence(viewport);
    viewport.canvas.setAttribute("aria-label", sentence);
    if (viewport.moved) this.page.announce(sentence);
    this.whatIf?.refresh(viewport);
    this.#remember();
  }

  #announceLinked(viewports) {
    const shown = viewports.map(({ series, index, stack }) => `${series.title} ${index + 1} of ${stack.slices}`);
    const text = shown.join(", ") || "No other series is known to contain this point";
    this.page.announce(text);
    if (!shown.length) this.viewer.current.say(text);
  }

  jump({ series, slice }) {
    this.viewer.activate(this.exam.series.findIndex(({ name }) => name === series));
    this.viewer.current.choose(slice);
  }

  #jumpDecisive(way) {
    const viewport = this.viewer.current;
    const order = this.explanation?.maps && this.explanation.ordered(this.finding, viewport.series.name);
    if (!order?.length) return;
    const now = order.indexOf(viewport.index);
    // from a slice that a key did not lead to, the first press goes to the decisive one
    const next = this.decisiveAt === viewport.index && now >= 0 ? now + way : 0;
    this.decisiveAt = order[(next + order.length) % order.length];
    viewport.choose(this.decisiveAt);
  }

  setLayout(layout, { keep = false } = {}) {
    this.viewer.setLayout(layout);
    this.tools.setLayout(this.viewer.layout);
    if (!keep) this.#remember();
  }

  #remember() {
    if (!this.viewer || this.ending.signal.aborted) return;
    const { series, index, moved } = this.viewer.current;
    const at = moved ? `${series.name}.${index + 1}` : "";
    remember(address("exam", this.key, { ...this.#shared(), at }));
  }

  // commands

  setHeat({ shown = this.showHeat, opacity = this.opacity, outline = this.showOutline }) {
    Object.assign(this, { showHeat: shown, opacity, showOutline: outline });
    settings.set("heat", shown ? "on" : "off");
    settings.set("outline", outline ? "on" : "off");
    settings.set("opacity", String(opacity));
    for (const [name, value] of [["heat", shown], ["outline", outline]]) {
      const box = this.why.querySelector(`input[name=${name}]`);
      if (box) box.checked = value;
    }
    this.viewer.redraw();
  }

  /** @returns {boolean} whether the command was one of this view's */
  run(command, event) {
    if (!this.viewer) return false;
    const commands = {
      finding: () => {
        const finding = this.model.findings[Number(event.key) - 1];
        if (finding) this.select(finding);
      },
      "hide-heat": () => this.#hold(true),
      "toggle-heat": () => this.setHeat({ shown: !this.showHeat }),
      "toggle-outline": () => this.setHeat({ outline: !this.showOutline }),
      "next-decisive": () => this.#jumpDecisive(1),
      "previous-decisive": () => this.#jumpDecisive(-1),
      "leave-out-slice": () => this.whatIf?.toggleSlice(this.viewer.current),
      "next-exam": () => this.#go("next"),
      "previous-exam": () => this.#go("previous"),
    };
    if (this.viewer.run(command)) return true;
    commands[command]?.();
    return command in commands;
  }

  /** Goes to the next or previous exam, as soon as it is known which one that is. */
  async #go(way) {
    await this.findingNeighbours;
    if (!this.ending.signal.aborted && this.neighbours[way]) go(address("exam", this.neighbours[way], this.#shared()));
  }

  /** A key was released. */
  release(command) {
    if (command === "hide-heat") this.#hold(false);
  }

  #hold(held) {
    if (held === this.held) return;
    this.held = held;
    this.viewer?.redraw();
  }

  #whatIfChanged() {
    for (const viewport of this.viewer.viewports) {
      viewport.leftOut = this.whatIf.slicesOf(viewport.series);
      viewport.strip.setLeftOut(viewport.leftOut);
      viewport.draw();
    }
    this.switch.setWhatIf(this.whatIf.result?.probabilities ?? null);
  }

  /** The address of the same exam changed: the back button, or a link. */
  update(place) {
    this.place = place;
    if (!this.viewer) return;
    if (place.query.layout && place.query.layout !== this.viewer.layout) this.setLayout(place.query.layout, { keep: true });
    if (place.query.finding && place.query.finding !== this.finding && this.model.findings.includes(place.query.finding)) this.select(place.query.finding);
    this.#askedSlice();
  }

  #fail(error) {
    if (cancelled(error) || this.ending.signal.aborted) return;
    const box = this.problem?.isConnected ? this.problem : this.root;
    if (error.status === 404 && box === this.root) {
      error = new Problem(`There is no exam \u201c${this.key}\u201d`, { status: 404, advice: "It may have been an upload that was removed. Open the work list" });
    }
    this.page.fail(error, box, () => this.page.reload());
  }

  leave() {
    this.ending.abort(new DOMException("the view was left", "AbortError"));
    this.viewer?.remove();
  }
}

/** A long id, such as a UID, without its middle. */
function shortened(id) {
  return id.length > 16 ? `${id.slice(0, 5)}\u2026${id.slice(-8)}` : id;
}

/** The text in a viewport's upper right corner. */
export function caption({ id, side, mirrored }) {
  const knee = side ? `${side} knee` : "";
  const images = mirrored ? "mirrored" : "";
  return [shortened(id), [knee, images].filter(Boolean).join(", ")].filter(Boolean).join("\n");
}
