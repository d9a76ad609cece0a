/** The work list: any number of exams, of which only the visible rows are loaded and drawn. */

import { cancelled, getJson } from "./api.js";
import { element, place } from "./dom.js";
import { pointsOf } from "./findings.js";
import { address, go, listParameters, remember } from "./state.js";
import { capital, count, duration, probability, ruleText } from "./words.js";

const ROW = 40; // height of a row in CSS pixels, as in room.css
const PAGE = 100;
const SPARE = 12; // rows drawn above and below the visible ones
const SEARCH_MS = 200;
const PROGRESS_MS = 2000;

const CALLS = ["positive", "negative", "right", "wrong"]; // values of the service's parameter `is`

export class WorkListView {
  constructor(root, place, page) {
    Object.assign(this, { root, page, model: page.model });
    this.ending = new AbortController();
    this.pages = new Map();
    this.matched = 0;
    this.total = 0;
    this.current = -1;
    this.generation = 0;
    this.#read(place);
  }

  #read({ query }) {
    const columns = ["id", "state", ...this.model.findings];
    this.query = {
      sort: columns.includes(query.sort) ? query.sort : "id",
      order: ["asc", "desc"].includes(query.order) ? query.order : "",
      q: query.q ?? "",
      data_set: query.data_set ?? "",
      split: query.split ?? "",
      finding: this.model.findings.includes(query.finding) ? query.finding : "",
      is: CALLS.includes(query.is) ? query.is : "",
    };
  }

  async start() {
    document.title = "Work list \u2013 mrknee";
    this.#build();
    if (this.page.searching) this.search.focus();
    this.page.searching = false;
    await this.#load();
    this.#watch();
  }

  // building

  #build() {
    const { signal } = this.ending;
    this.search = element("input", { type: "search", name: "q", value: this.query.q, placeholder: "Search ids", "aria-label": "Search by id", autocomplete: "off", spellcheck: "false" });
    let timer = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#change({ q: this.search.value.trim() }), SEARCH_MS);
    });
    this.summary = element("p", { class: "summary", role: "status" });
    this.progress = element("div", { class: "progress", hidden: true });
    this.problem = element("div", { class: "problems", role: "alert" });
    this.body = element("tbody");
    this.headers = new Map();
    const header = (name, text, kind) => {
      const [point] = pointsOf(this.model, name);
      const title = point && `Orange from ${point.threshold.toFixed(2)} on (${ruleText(point.rule)})`;
      const button = element("button", { type: "button", title, onclick: () => this.#sort(name) }, text);
      const cell = element("th", { scope: "col", class: kind }, button);
      this.headers.set(name, cell);
      return cell;
    };
    this.table = element("table", { class: "exams" },
      element("caption", { class: "hidden" }, "Exams"),
      element("thead", {}, element("tr", {},
        header("id", "Exam", "id"),
        this.model.findings.map((name) => header(name, capital(this.model.titles[name] ?? name), "finding")),
        header("state", "State", "state"))),
      this.body);
    this.scroller = element("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Work list" }, this.table);
    this.scroller.addEventListener("scroll", () => this.#draw(), { passive: true });
    new ResizeObserver(() => this.#draw()).observe(this.scroller);
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-index]");
      if (row && !event.target.closest("a")) this.#open(Number(row.dataset.index));
    }, { signal });
    this.scroller.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.root.replaceChildren(element("div", { class: "list" },
      element("header", { class: "list-head" },
        element("h1", {}, "Work list"), this.search, this.#filters(), this.summary, this.progress),
      this.problem, this.scroller));
  }

  #filters() {
    const select = (name, label, options) =>
      element("label", { class: "filter" }, element("span", {}, label),
        element("select", { name, onchange: (event) => this.#filter(name, event.target.value) },
          options.map(([value, text]) => element("option", { value, selected: this.query[name] === value }, text))));
    const sets = Object.entries(this.model.data_sets);
    const splits = [...new Set(sets.flatMap(([, names]) => names))];
    const titles = this.model.findings.map((name) => [name, capital(this.model.titles[name] ?? name)]);
    return element("div", { class: "filters" },
      sets.length > 1 && select("data_set", "Data set", [["", "all"], ...sets.map(([name]) => [name, name])]),
      splits.length > 1 && select("split", "Split", [["", "all"], ...splits.map((name) => [name, name])]),
      select("finding", "Finding", [["", "any"], ...titles]),
      select("is", "Network says", [["", "any"], ...CALLS.map((name) => [name, name])]));
  }

  #filter(name, value) {
    const change = { [name]: value };
    // a call is that of a finding
    if (name === "is" && value && !this.query.finding) change.finding = this.model.findings[0];
    if (name === "finding" && !value) change.is = "";
    this.#change(change);
    for (const [field, text] of Object.entries(change)) {
      const select = this.root.querySelector(`select[name=${field}]`);
      if (select) select.value = text;
    }
  }

  #sort(name) {
    const first = name === "id" || name === "state" ? "asc" : "desc";
    const now = this.#order();
    const order = this.query.sort === name ? (now === "asc" ? "desc" : "asc") : first;
    this.#change({ sort: name, order: order === first ? "" : order });
  }

  #order() {
    const { sort, order } = this.query;
    return order || (sort === "id" || sort === "state" ? "asc" : "desc");
  }

  #change(part) {
    Object.assign(this.query, part);
    remember(address("list", "", this.#shared()));
    this.scroller.scrollTop = 0;
    this.current = -1;
    this.#load();
  }

  #shared() {
    const { sort, ...rest } = this.query;
    return { ...rest, sort: sort === "id" ? "" : sort };
  }

  // loading

  #parameters(offset, limit = PAGE) {
    return listParameters(this.query, offset, limit);
  }

  async #load() {
    this.generation += 1;
    this.pages = new Map();
    for (const [name, cell] of this.headers) {
      const sorted = this.query.sort === name;
      if (sorted) cell.setAttribute("aria-sort", this.#order() === "asc" ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
    await this.#loadPage(0);
    this.#draw();
  }

  async #loadPage(number) {
    if (this.pages.has(number)) return;
    const { generation } = this;
    this.pages.set(number, []);
    try {
      const answer = await getJson(`exams?${this.#parameters(number * PAGE)}`, this.ending.signal);
      if (generation !== this.generation) return;
      this.pages.set(number, answer.exams);
      Object.assign(this, { matched: answer.matched, total: answer.total });
      this.#summarise(answer);
      this.page.keepList(this.#shared());
      this.#draw();
    } catch (error) {
      this.pages.delete(number);
      if (!cancelled(error)) this.page.fail(error, this.problem, () => this.#load());
    }
  }

  #summarise({ matched, total, failed }) {
    const shown = matched === total ? count(total, "exam") : `${matched.toLocaleString("en")} of ${count(total, "exam")}`;
    this.summary.textContent = failed ? `${shown}, ${failed.toLocaleString("en")} could not be read` : shown;
  }

  /** Shows the progress of the scoring, and the new results. */
  async #watch() {
    const { signal } = this.ending;
    let before = -1;
    while (!signal.aborted) {
      try {
        const { total, scored, failed, seconds_left: left } = await getJson("progress", signal);
        const done = scored + failed;
        this.#showProgress(done, total, left);
        if (before >= 0 && done !== before) await this.#refresh();
        before = done;
        if (done >= total) return;
      } catch (error) {
        if (cancelled(error)) return;
        this.progress.hidden = true; // the list itself reports problems
      }
      await new Promise((resolve) => setTimeout(resolve, PROGRESS_MS));
    }
  }

  #showProgress(done, total, left) {
    this.progress.hidden = done >= total;
    const text = `Scored ${done.toLocaleString("en")} of ${total.toLocaleString("en")}${left ? `, about ${duration(left)} left` : ""}`;
    const bar = element("progress", { max: total, value: done, "aria-label": "Exams scored" });
    this.progress.replaceChildren(bar, element("span", {}, text));
  }

  /** Loads the visible rows again; the order of rows follows the new results. */
  async #refresh() {
    const { generation } = this;
    const [first, last] = this.#visible();
    for (let number = Math.floor(first / PAGE); number <= Math.floor(last / PAGE); number += 1) {
      const answer = await getJson(`exams?${this.#parameters(number * PAGE)}`, this.ending.signal);
      if (generation !== this.generation) return;
      this.pages.set(number, answer.exams);
      this.matched = answer.matched;
      this.#summarise(answer);
    }
    const kept = new Set();
    for (let number = Math.floor(first / PAGE); number <= Math.floor(last / PAGE); number += 1) kept.add(number);
    for (const number of this.pages.keys()) if (!kept.has(number)) this.pages.delete(number);
    this.#draw();
  }

  // drawing

  #visible() {
    const top = Math.max(0, this.scroller.scrollTop - this.table.tHead.offsetHeight);
    const first = Math.max(0, Math.floor(top / ROW) - SPARE);
    const last = Math.min(this.matched, Math.ceil((top + this.scroller.clientHeight) / ROW) + SPARE) - 1;
    return [first, Math.max(first, last)];
  }

  #draw() {
    const focused = this.current >= 0 && (this.body.contains(document.activeElement) || document.activeElement === this.scroller);
    const [first, last] = this.#visible();
    this.table.setAttribute("aria-rowcount", this.matched + 1);
    const rows = [];
    for (let index = first; index <= last && index < this.matched; index += 1) {
      const number = Math.floor(index / PAGE);
      const exam = this.pages.get(number)?.[index % PAGE];
      if (!exam) this.#loadPage(number);
      rows.push(this.#row(exam, index));
    }
    const space = (height) => {
      const row = element("tr", { class: "space", "aria-hidden": "true" }, element("td", { colspan: this.model.findings.length + 2 }));
      place(row, { height: `${height}px` });
      return row;
    };
    if (this.matched === 0) rows.push(element("tr", {}, element("td", { class: "none", colspan: this.model.findings.length + 2 }, this.#emptyText())));
    this.body.replaceChildren(space(first * ROW), ...rows, space(Math.max(0, this.matched - last - 1) * ROW));
    if (focused) this.#focusRow();
  }

  #emptyText() {
    if (this.total === 0) return "No exams. Start the service with --exams and the folder of a data set, or upload an exam.";
    return "No exam matches the search and the filters.";
  }

  #row(exam, index) {
    const row = element("tr", { "data-index": index, "aria-rowindex": index + 2, class: index === this.current ? "current" : null });
    if (!exam) {
      row.append(element("td", { class: "id" }, "\u2026"));
      return row;
    }
    const origin = [exam.data_set, exam.split].filter(Boolean).join(" / ");
    row.append(
      element("th", { scope: "row", class: "id" },
        element("a", { href: address("exam", exam.key, { finding: this.#findingOf() }) }, exam.id),
        element("span", { class: "origin" }, origin)),
      ...this.model.findings.map((name) => this.#cell(exam, name)),
      element("td", { class: "state" }, this.#stateText(exam)));
    return row;
  }

  /** An exam opens with the finding that the list is about. */
  #findingOf() {
    return this.query.is ? this.query.finding : this.model.findings.includes(this.query.sort) ? this.query.sort : "";
  }

  #cell(exam, name) {
    const p = exam.probabilities?.[name];
    const label = exam.labels?.[name];
    const right = exam.right?.[name];
    const cell = element("td", { class: "finding" });
    const inside = element("div", { class: "score" });
    if (p === undefined || p === null) inside.append(element("span", { class: "bar" }), element("span", { class: "value" }, "\u2013"));
    else {
      const [point] = pointsOf(this.model, name);
      const fill = place(element("span", { class: point && p >= point.threshold ? "fill positive" : "fill" }), { width: `${100 * p}%` });
      inside.append(element("span", { class: "bar" }, fill), element("span", { class: "value" }, probability(p)));
    }
    if (label !== undefined && label !== null) {
      const text = label === 1 ? "present" : label === 0 ? "absent" : `label ${label.toFixed(2)}`;
      const mark = right === true ? "\u2713" : right === false ? "\u2717" : "\u00b7";
      const word = right === true ? "right" : right === false ? "wrong" : "not compared";
      inside.append(element("span", { class: `truth ${right === false ? "wrong" : right === true ? "right" : ""}`, title: `Label: ${text}; ${word}` },
        element("span", { "aria-hidden": "true" }, mark), element("span", { class: "hidden" }, ` label ${text}, ${word}`)));
    }
    cell.append(inside);
    return cell;
  }

  #stateText(exam) {
    if (exam.state === "failed") return element("span", { class: "wrong", title: exam.problem?.what ?? "" }, `not read: ${exam.problem?.what ?? ""}`);
    const parts = [];
    if (exam.state === "waiting") parts.push("waiting");
    if (exam.remarks?.length) parts.push(count(exam.remarks.length, "remark"));
    if (exam.note) parts.push("note");
    return parts.join(", ");
  }

  // keys

  #key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    if (event.key in steps && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      this.#move(Math.min(this.matched - 1, Math.max(0, this.current + steps[event.key])));
    } else if (event.key === "Enter" && this.current >= 0 && !event.target.closest("button, a")) this.#open(this.current);
  }

  #move(index) {
    this.current = index;
    const head = this.table.tHead.offsetHeight;
    const { scrollTop, clientHeight } = this.scroller;
    if (index * ROW < scrollTop) this.scroller.scrollTop = index * ROW;
    else if ((index + 1) * ROW + head > scrollTop + clientHeight) this.scroller.scrollTop = (index + 1) * ROW + head - clientHeight;
    this.#draw();
    this.#focusRow();
  }

  #focusRow() {
    const link = this.body.querySelector(`tr[data-index="${this.current}"] a`);
    if (link) link.focus({ preventScroll: true });
    else this.scroller.focus({ preventScroll: true });
  }

  #open(index) {
    const exam = this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
    if (exam) go(address("exam", exam.key, { finding: this.#findingOf() }));
  }

  run(command) {
    if (command === "search") this.search.focus();
    else if (command === "next-slice" || command === "previous-slice") this.#move(Math.max(0, this.current + (command === "next-slice" ? 1 : -1)));
    else return false;
    return true;
  }

  release() {}

  update(place) {
    this.#read(place);
    this.search.value = this.query.q;
    for (const select of this.root.querySelectorAll(".filters select")) select.value = this.query[select.name];
    this.#load();
  }

  leave() {
    this.ending.abort(new DOMException("the view was left", "AbortError"));
  }
}
