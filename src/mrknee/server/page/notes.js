/** A reader's note about a finding of an exam; kept by the service where it was started with --notes. */

import { cancelled, examPath, getJson, sendJson } from "./api.js";
import { element } from "./dom.js";
import { drafts } from "./state.js";
import { capital } from "./words.js";

const LONGEST = 2000;
const UNSAVED = "Not saved yet.";

/** @param {import("./exam.js").ExamView} view */
export function notesPanel(view) {
  const { finding } = view;
  const path = examPath(view.key, "notes", finding);
  const { signal } = view.ending;
  let slice = null;
  let changed = null; // time of the stored note that was seen last
  const state = element("p", { class: "hint", role: "status" });
  const choices = [["", "Not decided"], ["true", "Agree"], ["false", "Disagree"]].map(([value, text]) =>
    element("label", { class: "check" }, element("input", { type: "radio", name: "agree", value, checked: value === "" }), text));
  const comment = element("textarea", { rows: 3, maxlength: LONGEST, "aria-label": "Comment", placeholder: "Comment" });
  const marked = element("button", { type: "button", class: "chip", hidden: true, onclick: () => slice && view.jump({ series: slice.series, slice: slice.index }) });
  const unmark = element("button", { type: "button", "aria-label": "Detach the slice", hidden: true, onclick: () => attach(null) }, "\u00d7");
  const showSlice = () => {
    marked.hidden = unmark.hidden = !slice;
    const title = view.exam.series.find(({ name }) => name === slice?.series)?.title;
    marked.textContent = slice ? `${title} ${slice.index + 1}` : "";
  };
  const attach = (place) => {
    slice = place;
    showSlice();
    edited();
  };
  const mark = element("button", { type: "button", onclick: () => {
    const { series, index } = view.viewer.current;
    attach({ series: series.name, index });
  } }, "Attach the shown slice");
  const fields = element("fieldset", { class: "bare", disabled: true },
    element("fieldset", {}, element("legend", {}, "Do you agree with the network?"), choices), comment,
    element("div", { class: "row" }, mark, element("span", { class: "nowrap" }, marked, unmark)),
    element("div", { class: "row" }, element("button", { type: "submit", class: "primary" }, "Save the note"),
      element("a", { href: "api/v1/notes.csv", download: "notes.csv" }, "All notes (CSV)")));
  const form = element("form", { class: "notes", oninput: () => edited(), onsubmit: (event) => {
    event.preventDefault();
    save();
  } }, fields, state);

  const say = (text, wrong = false) => {
    state.className = wrong ? "warning" : "hint";
    state.replaceChildren(text);
  };
  const content = () => ({
    agree: { true: true, false: false }[form.querySelector("input[name=agree]:checked").value] ?? null,
    comment: comment.value,
    slice,
  });
  const fill = (note) => {
    for (const box of form.querySelectorAll("input[name=agree]")) box.checked = box.value === String(note.agree ?? "");
    comment.value = note.comment;
    slice = note.slice;
    showSlice();
  };
  /** Keeps what is not saved yet until it is, also if another finding or exam is opened. */
  const edited = () => {
    drafts.set(path, content());
    say(UNSAVED);
  };
  async function load() {
    say("");
    try {
      const note = await getJson(path, signal);
      changed = note.changed;
      fill(drafts.get(path) ?? note);
      fields.disabled = false;
      if (drafts.get(path)) say(UNSAVED);
    } catch (error) {
      if (cancelled(error)) return;
      // a note that was not seen must not be replaced
      say(error.sentences?.join(" ") ?? String(error), true);
      state.append(" ", element("button", { type: "button", onclick: load }, "Try again"));
    }
  }
  async function save() {
    say("Saving\u2026");
    try {
      const stored = await getJson(path, signal);
      if (stored.changed !== changed) {
        changed = stored.changed;
        say(`This note was changed elsewhere meanwhile (\u201c${stored.comment}\u201d). Save again to replace it.`, true);
        return;
      }
      changed = (await sendJson("PUT", path, content(), signal)).changed;
      drafts.delete(path);
      say("Saved.");
    } catch (error) {
      if (!cancelled(error)) say(error.sentences?.join(" ") ?? String(error), true);
    }
  }
  load();
  const title = view.model.titles[finding] ?? finding;
  return element("section", { class: "panel", "aria-labelledby": "notes-title" },
    element("h2", { id: "notes-title" }, `Note: ${capital(title)}`), form);
}
