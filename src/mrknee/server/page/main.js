/** Start of the page: the model, the views by address, keys, theme, help. */

import { getJson, Problem } from "./api.js";
import { element } from "./dom.js";
import { ExamView } from "./exam.js";
import { helpDialog } from "./help.js";
import { address, go, listParameters, listQuery, parse, settings } from "./state.js";
import { commandOf } from "./viewer.js";
import { keyBinding } from "./bindings.js";
import { WorkListView } from "./worklist.js";

/** The class of each view; those that few visits need are loaded when they are opened. */
const VIEWS = {
  list: () => WorkListView,
  exam: () => ExamView,
  quiz: async () => (await import("./quiz.js")).QuizView,
  upload: async () => (await import("./upload.js")).UploadView,
};
const ANNOUNCE_MS = 250; // while slices pass by, only the last one is announced

const root = document.getElementById("view");
const live = document.getElementById("live");
let view = null;
let place = null;
let announcing = 0;

/** What all views share. */
const page = {
  model: null,
  dropped: null, // files for the upload
  searching: false, // whether the work list opens with the focus in its search
  announce(text) {
    clearTimeout(announcing);
    announcing = setTimeout(() => {
      live.textContent = text;
    }, ANNOUNCE_MS);
  },
  /** Shows an error in a box, with a button to try again. */
  fail(error, box, retry = null) {
    const sentences = error instanceof Problem ? error.sentences : [error.message ?? String(error)];
    const [first, ...more] = sentences;
    if (!(error instanceof Problem)) console.error(error);
    box.replaceChildren(element("div", { class: "problem" },
      element("p", {}, element("strong", {}, first)), more.map((text) => element("p", {}, text)),
      retry && element("button", { type: "button", onclick: () => {
        box.replaceChildren();
        retry();
      } }, "Try again")));
  },
  reload() {
    show(place, { again: true });
  },
  /** The order of the work list, for the previous and next exam. */
  keepList(query) {
    listQuery.set(query);
    this.around = null;
  },
  /** The keys of the exams before and after one in the work list. */
  async neighbours(key) {
    const found = this.around?.keys.indexOf(key) ?? -1;
    const whole = found >= 0 && (found > 0 || this.around.first) && (found < this.around.keys.length - 1 || this.around.last);
    try {
      if (!whole) this.around = await keysAround(key);
    } catch {
      return {}; // the exam itself reports problems
    }
    const { keys } = this.around;
    const at = keys.indexOf(key);
    return at < 0 ? {} : { previous: keys[at - 1], next: keys[at + 1] };
  },
};

/** Up to 200 keys of the work list around one. */
async function keysAround(key) {
  const answer = await getJson(`exams?${listParameters({ ...listQuery.get(), around: key }, 0, 200)}`);
  const keys = answer.exams.map((one) => one.key);
  return { keys, first: answer.offset === 0, last: answer.offset + keys.length >= answer.matched };
}

async function show(next, { again = false } = {}) {
  if (view && !again && place.view === next.view && place.key === next.key) {
    place = next;
    view.update(next);
    return;
  }
  view?.leave();
  view = null;
  place = next;
  delete root.dataset.loaded;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === next.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  root.dataset.view = next.view;
  // from elsewhere, back to the list as it was; in the list itself, to all exams
  const list = address("list", "", next.view === "list" ? {} : listQuery.get());
  for (const link of document.querySelectorAll("a.brand, a[data-view=list]")) link.href = list;
  const View = await (VIEWS[next.view] ?? VIEWS.list)();
  if (place !== next) return; // another view was opened meanwhile
  view = new View(root, next, page);
  view.start();
}

function addTheme() {
  const select = document.getElementById("theme");
  select.value = settings.get("theme", "dark");
  select.addEventListener("change", () => {
    settings.set("theme", select.value);
    document.dispatchEvent(new Event("mrknee-theme"));
    view?.viewer?.redraw();
  });
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => view?.viewer?.redraw());
}

function addKeys(help) {
  document.addEventListener("keydown", (event) => {
    const command = event.defaultPrevented ? undefined : commandOf(event);
    if (!command) return;
    if (command === "help") help.open ? help.close() : help.showModal();
    else if (command === "search" && place.view !== "list") {
      page.searching = true;
      go(address("list"));
    }
    else if (!view?.run(command, event)) return;
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    const command = keyBinding(event)?.command;
    if (command) view?.release(command);
  });
  addEventListener("blur", () => view?.release("hide-heat")); // its keyup goes elsewhere
}

/** Files dropped anywhere open the upload. */
function addDrop() {
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length === 0) return;
    if (place.view === "upload") view.add(files);
    else {
      page.dropped = files;
      go(address("upload"));
    }
  });
}

async function start() {
  const help = helpDialog();
  document.body.append(help);
  document.getElementById("help").addEventListener("click", () => help.showModal());
  addTheme();
  try {
    page.model = await getJson("model");
  } catch (error) {
    page.fail(error, root, start);
    return;
  }
  document.getElementById("model").textContent = page.model.model;
  addKeys(help);
  addDrop();
  addEventListener("hashchange", () => show(parse(location.hash)));
  show(parse(location.hash));
}

start();
