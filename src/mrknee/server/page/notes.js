/** A reader's note about a finding of an exam; kept by the service where it was started with --notes. */

import { examPath, getJson, sendJson } from "./api.js";
import { element } from "./dom.js";
import { capital } from "./words.js";

const LONGEST = 2000;

/** @param {import("./exam.js").ExamView} view */
export function notesPanel(view) {
  const { finding } = view;
  const path = examPath(view.key, "notes", finding);
  const { signal } = view.ending;
  let slice = null;
  const state = element("p", { class: "hint", role: "status" });
  const choices = [["", "Undecided"], ["true", "Agree"], ["false", "Disagree"]].map(([value, text]) =>
    element("label", { class: "check" }, element("input", { type: "radio", name: "agree", value, checked: value === "" }), text));
  const comment = element("textarea", { rows: 3, maxlength: LONGEST, "aria-label": "Comment", placeholder: "Comment" });
  const marked = element("button", { type: "button", class: "chip", hidden: true, onclick: () => slice && view.jump({ series: slice.series, slice: slice.index }) });
  const unmark = element("button", { type: "button", "aria-label": "Remove the mark", onclick: () => {
    slice = null;
    showMark();
  } }, "\u00d7");
  const showMark = () => {
    marked.hidden = unmark.hidden = !slice;
    const title = view.exam.series.find(({ name }) => name === slice?.series)?.title;
    marked.textContent = slice ? `Marked: ${title} ${slice.index + 1}` : "";
  };
  const mark = element("button", { type: "button", onclick: () => {
    const { series, index } = view.viewer.current;
    slice = { series: series.name, index };
    showMark();
  } }, "Mark the shown slice");
  const form = element("form", { class: "notes", onsubmit: (event) => {
    event.preventDefault();
    save();
  } },
  element("fieldset", {}, element("legend", {}, "The network's call"), choices), comment,
  element("div", { class: "row" }, mark, marked, unmark),
  element("div", { class: "row" }, element("button", { type: "submit", class: "primary" }, "Save the note"),
    element("a", { href: "api/v1/notes.csv", download: "notes.csv" }, "All notes (CSV)")), state);

  const fill = (note) => {
    for (const box of form.querySelectorAll("input[name=agree]")) box.checked = box.value === String(note?.agree ?? "");
    comment.value = note?.comment ?? "";
    slice = note?.slice ?? null;
    showMark();
  };
  async function save() {
    const agree = { true: true, false: false }[form.querySelector("input[name=agree]:checked").value] ?? null;
    state.textContent = "Saving\u2026";
    try {
      await sendJson("PUT", path, { agree, comment: comment.value, slice }, signal);
      state.textContent = "Saved.";
    } catch (error) {
      state.textContent = error.sentences?.join(" ") ?? String(error);
    }
  }
  getJson(path, signal).then(fill, (error) => {
    if (error.status && error.status !== 404) state.textContent = error.sentences.join(" ");
  });
  const title = view.model.titles[finding] ?? finding;
  return element("section", { class: "panel", "aria-labelledby": "notes-title" },
    element("h2", { id: "notes-title" }, `Note: ${capital(title)}`), form);
}
