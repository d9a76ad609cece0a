/** The quiz: read an exam, answer, then compare with the label and the network. Kept in this page only. */

import { cancelled, examPath, getJson } from "./api.js";
import { element } from "./dom.js";
import { Explanation } from "./explanation.js";
import { HeatMaps } from "./heat.js";
import { wilson } from "./statistics.js";
import { address, remember } from "./state.js";
import { imageTools } from "./tools.js";
import { defaultLayout, Viewer } from "./viewer.js";
import { capital, count, effect, percent } from "./words.js";

/** Answers of this page, until it is reloaded: {finding, label, reader, network}. */
const answers = [];

/** The exams that are still to be asked, for a quiz that is left and continued: {finding, split, waiting, number, open}. */
let round = null;

export class QuizView {
  constructor(root, place, page) {
    Object.assign(this, { root, page, model: page.model });
    this.ending = new AbortController();
    const { findings } = this.model;
    this.finding = findings.includes(place.query.finding) ? place.query.finding : findings.at(-2) ?? findings[0];
    this.split = place.query.split ?? "";
    this.held = false;
  }

  async start() {
    document.title = "Quiz \u2013 mrknee";
    this.problem = element("div", { class: "problems", role: "alert" });
    this.head = element("header", { class: "quiz-head" });
    this.desk = element("div", { class: "desk" });
    this.root.replaceChildren(element("div", { class: "quiz exam" }, this.head, this.problem, this.desk));
    this.#intro();
  }

  // the start

  #intro() {
    this.viewer?.remove();
    this.viewer = null;
    const splits = [...new Set(Object.values(this.model.data_sets).flat())];
    const select = (name, label, options, chosen) =>
      element("label", { class: "filter" }, element("span", {}, label),
        element("select", { name, onchange: (event) => {
          this[name] = event.target.value;
          remember(address("quiz", "", { finding: this.finding, split: this.split }));
        } }, options.map(([value, text]) => element("option", { value, selected: value === chosen }, text))));
    this.head.replaceChildren(element("h1", {}, "Quiz"));
    this.desk.replaceChildren(element("div", { class: "intro" },
      element("p", {}, "Read labelled exams without the network's help. After each answer you see the label, the network's probability and where it looked. Exams are drawn at random, each once."),
      element("div", { class: "filters" },
        select("finding", "Finding", this.model.findings.map((name) => [name, capital(this.model.titles[name] ?? name)]), this.finding),
        splits.length > 1 && select("split", "Split", [["", "all"], ...splits.map((name) => [name, name])], this.split)),
      element("div", { class: "row" }, this.#continuation(),
        element("button", { type: "button", class: "primary", onclick: () => this.#begin() }, "Start")),
      element("p", { class: "hint" }, "Answers stay in this page; they are not sent anywhere. Closing or reloading the page deletes them."),
      this.#score()));
  }

  /** A button that continues a quiz that was left. */
  #continuation() {
    if (!round?.open && !round?.waiting.length) return null;
    const { finding, split } = round;
    const next = round.open ? round.number : round.number + 1;
    return element("button", { type: "button", class: "primary", onclick: () => {
      Object.assign(this, { finding, split });
      this.#ask();
    } }, `Continue: ${this.#title(finding)}, exam ${next}`);
  }

  async #begin() {
    this.problem.replaceChildren();
    try {
      const [positive, negative] = await Promise.all(["positive", "negative"].map(async (truth) => {
        const { matched } = await getJson(`exams?${this.#pool(truth, 0)}`, this.ending.signal);
        return Array.from({ length: matched }, (_, offset) => ({ truth, offset }));
      }));
      const { finding, split } = this;
      round = { finding, split, waiting: shuffled([...positive, ...negative]), number: 0, open: null };
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (round.waiting.length === 0) {
      this.page.fail(new Error(`No exam with a label for ${this.#title()}.`), this.problem);
      return;
    }
    await this.#ask();
  }

  #pool(truth, offset) {
    const query = { finding: this.finding, truth, offset, limit: 1, ...(this.split ? { split: this.split } : {}) };
    return new URLSearchParams(query).toString();
  }

  #title(finding = this.finding) {
    return this.model.titles[finding] ?? finding;
  }

  // one exam

  async #ask() {
    if (!round.open && round.waiting.length === 0) {
      this.#intro();
      return;
    }
    if (!round.open) {
      round.open = round.waiting.pop();
      round.number += 1;
    }
    const { truth, offset } = round.open;
    this.asked = null;
    this.heat = this.explanation = null;
    const { signal } = this.ending;
    try {
      const { exams } = await getJson(`exams?${this.#pool(truth, offset)}`, signal);
      const exam = await getJson(examPath(exams[0].key), signal);
      for (const series of exam.series) series.title = capital(series.title);
      this.asked = { exam, label: exam.labels[this.finding] };
      this.viewer?.remove();
      this.#show(exam);
      await this.viewer.showFirst({});
      await this.viewer.loadAll();
    } catch (error) {
      if (!cancelled(error) && !this.asked) round.open = null; // it can't be asked
      this.#fail(error);
    }
  }

  #show(exam) {
    this.viewer = new Viewer(exam, {
      overlay: (viewport) => this.#overlay(viewport),
      readout: () => null,
      caption: () => `Exam ${round.number} of the quiz`,
      onSlice: (viewport) => this.#changed(viewport),
      onActive: (viewport) => this.#changed(viewport),
      onError: (error) => this.#fail(error),
    }, this.ending.signal);
    this.viewer.setLayout(defaultLayout(exam.series.length));
    this.tools = imageTools(this.viewer, (command) => this.run(command), (layout) => {
      this.viewer.setLayout(layout);
      this.tools.setLayout(layout);
    });
    this.tools.setLayout(this.viewer.layout);
    this.panel = element("aside", { class: "why", "aria-label": "Answer" });
    this.head.replaceChildren(element("h1", {}, `Quiz: ${capital(this.#title())}`),
      element("button", { type: "button", onclick: () => this.#intro() }, "End the quiz"));
    this.desk.replaceChildren(element("div", { class: "stage" }, this.viewer.node, this.tools.node), this.panel);
    this.#showQuestion();
    this.viewer.focus();
  }

  #showQuestion() {
    const button = (answer, text) => element("button", { type: "button", class: "primary", "data-answer": answer, onclick: () => this.#answer(answer) }, text);
    this.panel.replaceChildren(
      element("section", { class: "panel", "aria-labelledby": "question" },
        element("h2", { id: "question" }, `Exam ${round.number}: ${this.#title()}, present or absent?`),
        element("div", { class: "row answers" }, button(1, "Present"), button(0, "Absent"))),
      this.#score() ?? "");
  }

  async #answer(reader) {
    if (!this.asked || this.answered === this.asked) return;
    const asked = this.asked;
    this.answered = asked;
    const { signal } = this.ending;
    const part = this.model.explainable ? "explanation" : "prediction";
    try {
      const path = examPath(asked.exam.key, part);
      this.explanation = new Explanation(await getJson(path, signal), this.model);
      round.open = null;
      answers.push({ finding: this.finding, label: asked.label, reader, network: this.explanation.positive(this.finding) ? 1 : 0 });
      this.#showResult(asked, reader);
      if (!this.explanation.maps) return;
      this.heat = new HeatMaps(asked.exam.key, this.explanation.maps, this.explanation.cell_scale);
      const largest = this.explanation.largestScore(this.finding);
      await Promise.all(this.viewer.viewports.map(async (viewport) => {
        const { name } = viewport.series;
        const [first] = this.explanation.ordered(this.finding, name);
        viewport.strip.setScores(this.explanation.scores(this.finding, name), largest, first ?? -1, this.#title());
        if (this.heat.frames[name]) await this.heat.load(name, this.finding, signal);
        if (first !== undefined) viewport.show(first);
        viewport.draw();
      }));
    } catch (error) {
      this.answered = null;
      this.#fail(error);
    }
  }

  #showResult({ exam, label }, reader) {
    const word = (value) => (value === 1 ? "present" : "absent");
    const right = reader === label;
    const network = this.explanation.positive(this.finding) ? 1 : 0;
    const verdict = (value) => element("span", { class: value === label ? "right" : "wrong" }, value === label ? "\u2713 right" : "\u2717 wrong");
    const next = element("button", { type: "button", class: "primary", onclick: () => this.#ask() },
      round.waiting.length ? "Next exam" : "Finish");
    this.panel.replaceChildren(
      element("section", { class: "panel result", "aria-labelledby": "result" },
        element("h2", { id: "result", role: "status" }, right ? "Right" : "Wrong", `: ${this.#title()} ${word(label)}`),
        element("dl", {},
          element("dt", {}, "You"), element("dd", {}, capital(word(reader)), " ", verdict(reader)),
          element("dt", {}, "Network"), element("dd", {}, `${capital(word(network))}, probability ${this.explanation.probabilityText(this.finding)} `, verdict(network)),
          element("dt", {}, "Label"), element("dd", {}, capital(word(label)))),
        element("p", { class: "hint" }, "Each viewport shows the slice that decides for the network, with its heat map."),
        element("div", { class: "row" }, next,
          element("a", { class: "button", href: address("exam", exam.key, { finding: this.finding }) }, `Open exam ${exam.id}`))),
      this.#score());
    next.focus({ preventScroll: true });
  }

  #overlay({ series, index }) {
    if (!this.heat || this.held || !this.heat.frames[series.name]) return null;
    const heat = this.heat.picture(series.name, this.finding, index);
    return { frame: this.heat.frames[series.name], heat, opacity: 0.7, mark: null, outline: null };
  }

  #changed(viewport) {
    if (!this.viewer || viewport !== this.viewer.current) return;
    const { series, index, stack } = viewport;
    const score = this.explanation?.scores(this.finding, series.name)?.[index];
    const text = `${series.title} ${index + 1} of ${stack.slices}${score === undefined ? "" : `, ${effect(score, this.#title())}`}`;
    viewport.canvas.setAttribute("aria-label", text);
    if (viewport.moved) this.page.announce(text);
  }

  // the score

  #score() {
    const own = answers.filter(({ finding }) => finding === this.finding);
    if (own.length === 0) return null;
    const share = (chosen, of) => {
      const { value, low, high } = wilson(chosen.length, of.length);
      return of.length ? `${chosen.length} of ${of.length}: ${percent(value, low, high)}` : "\u2013";
    };
    const row = (text, of) => element("tr", {}, element("th", { scope: "row" }, text),
      ["reader", "network"].map((who) => element("td", {}, share(of.filter((one) => one[who] === one.label), of))));
    return element("section", { class: "panel score-panel", "aria-labelledby": "score" },
      element("h2", { id: "score" }, `Score after ${count(own.length, "exam")}`),
      element("table", {},
        element("thead", {}, element("tr", {}, element("td"), element("th", { scope: "col" }, "You"), element("th", { scope: "col" }, "Network"))),
        element("tbody", {},
          row("Right", own),
          row("Sensitivity", own.filter(({ label }) => label === 1)),
          row("Specificity", own.filter(({ label }) => label === 0)))),
      element("p", { class: "hint" }, "In brackets: Wilson\u2019s 95 % interval."));
  }

  // commands

  run(command) {
    if (command === "hide-heat") this.#hold(true);
    return this.viewer?.run(command) || command === "hide-heat";
  }

  release(command) {
    if (command === "hide-heat") this.#hold(false);
  }

  #hold(held) {
    this.held = held;
    this.viewer?.redraw();
  }

  update() {}

  #fail(error) {
    if (!cancelled(error)) this.page.fail(error, this.problem);
  }

  leave() {
    this.ending.abort(new DOMException("the view was left", "AbortError"));
    this.viewer?.remove();
  }
}

/** A random order (Fisher and Yates). */
function shuffled(list) {
  for (let last = list.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [list[last], list[other]] = [list[other], list[last]];
  }
  return list;
}
