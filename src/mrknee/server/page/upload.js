/** Upload of exams: .npy files of an exam's series, a .zip in MRNet's layout, or a .zip of DICOM. */

import { cancelled, Problem, upload } from "./api.js";
import { element } from "./dom.js";
import { address, go } from "./state.js";
import { capital, count } from "./words.js";

export class UploadView {
  constructor(root, place, page) {
    Object.assign(this, { root, page, model: page.model });
    this.ending = new AbortController();
    this.files = []; // {file, series}
    this.sending = null;
  }

  async start() {
    document.title = "Upload \u2013 mrknee";
    this.input = element("input", { type: "file", multiple: true, accept: ".npy,.zip", class: "hidden", "aria-label": "Files", onchange: () => this.add(this.input.files) });
    this.list = element("ul", { class: "files" });
    this.state = element("div", { class: "upload-state", role: "status" });
    this.problem = element("div", { class: "problems", role: "alert" });
    this.send = element("button", { type: "button", class: "primary", disabled: true, onclick: () => this.#send() }, "Upload");
    this.zone = element("div", { class: "drop" },
      element("p", {}, "Drop files here, or ", element("button", { type: "button", onclick: () => this.input.click() }, "choose files")),
      element("ul", { class: "hint" },
        element("li", {}, `One .npy file per series (${this.model.series.map(({ title }) => title).join(", ")}), as mrknee import writes them`),
        element("li", {}, "One .zip of exams in MRNet\u2019s layout"),
        element("li", {}, "One .zip of DICOM files")),
      this.input);
    const { limits } = this.model;
    this.root.replaceChildren(element("div", { class: "upload" },
      element("h1", {}, "Upload"), this.zone, this.list, element("div", { class: "row" }, this.send), this.state, this.problem,
      element("p", { class: "hint" }, `At most ${Math.round(limits.body_bytes / 1e6)} MB, ${limits.slices} slices per series. Uploaded exams stay in the service\u2019s memory, the oldest are removed first; nothing remains on a disk.`)));
    if (this.page.dropped) {
      this.add(this.page.dropped);
      this.page.dropped = null;
    }
  }

  /** Adds chosen or dropped files. */
  add(files) {
    this.problem.replaceChildren();
    this.state.replaceChildren();
    for (const file of files) this.files.push({ file, series: this.#guess(file.name), problem: null });
    this.input.value = "";
    this.#show();
  }

  /** The series that a file's name contains, such as axial or exam7_sagittal.npy; "" if it doesn't. */
  #guess(name) {
    if (!name.toLowerCase().endsWith(".npy")) return "";
    const lower = name.toLowerCase();
    const taken = new Set(this.files.map(({ series }) => series));
    const named = this.model.series.find((one) => lower.includes(one.name.toLowerCase()));
    return named && !taken.has(named.name) ? named.name : "";
  }

  #show() {
    this.list.replaceChildren(...this.files.map((entry) => {
      const { file } = entry;
      const zip = file.name.toLowerCase().endsWith(".zip");
      const choice = zip ? null : element("select", { "aria-label": `Series of ${file.name}`, onchange: (event) => {
        entry.series = event.target.value;
      } }, element("option", { value: "", selected: !entry.series }, "Series\u2026"), this.model.series.map(({ name, title }) => element("option", { value: name, selected: name === entry.series }, capital(title))));
      return element("li", {},
        element("span", { class: "name" }, file.name), element("span", { class: "size" }, size(file.size)), choice,
        element("button", { type: "button", "aria-label": `Remove ${file.name}`, onclick: () => {
          this.files = this.files.filter((one) => one !== entry);
          this.#show();
        } }, "\u00d7"),
        entry.problem && element("p", { class: "warning" }, entry.problem));
    }));
    this.send.disabled = this.files.length === 0;
  }

  /** What is wrong with the choice of files, before anything is sent. */
  #check() {
    const zips = this.files.filter(({ file }) => /\.zip$/i.test(file.name));
    if (zips.length > 0 && this.files.length > 1) return new Problem("One .zip per upload", { advice: "Remove the other files" });
    const series = this.files.map((one) => one.series);
    const odd = this.files.find(({ file }) => !/\.(npy|zip)$/i.test(file.name));
    if (odd) return new Problem(`The file ${odd.file.name} is neither a .npy nor a .zip file`, { advice: "Remove it" });
    const open = this.files.find((one) => !one.series && !zips.includes(one));
    if (open) return new Problem(`The series of ${open.file.name} is not chosen`, { advice: "Choose it beside the file" });
    const twice = series.find((name, at) => name && series.indexOf(name) !== at);
    if (twice) return new Problem(`Two files are assigned to the series ${twice}`, { advice: "Choose another series for one of them" });
    const missing = this.model.series.filter(({ name }) => !series.includes(name));
    if (zips.length === 0 && missing.length > 0 && !this.model.limits.missing_series) {
      return new Problem(`No file for ${missing.map(({ title }) => title).join(", ")}`, { advice: "Add one .npy file per series" });
    }
    const total = this.files.reduce((sum, { file }) => sum + file.size, 0);
    if (total > this.model.limits.body_bytes) return new Problem(`${size(total)} are more than the service accepts`, { expected: `at most ${size(this.model.limits.body_bytes)}` });
    return null;
  }

  async #send() {
    this.problem.replaceChildren();
    this.state.replaceChildren();
    const wrong = this.#check();
    if (wrong) {
      this.page.fail(wrong, this.problem);
      return;
    }
    const form = new FormData();
    for (const { file, series } of this.files) form.append(series || "archive", file, file.name);
    const bar = element("progress", { max: 1, value: 0, "aria-label": "Sent" });
    const text = element("span", {}, "Sending\u2026");
    const sending = new AbortController();
    this.ending.signal.addEventListener("abort", () => sending.abort(this.ending.signal.reason));
    this.state.replaceChildren(bar, text, element("button", { type: "button", onclick: () => sending.abort(new DOMException("cancelled", "AbortError")) }, "Cancel"));
    this.send.disabled = true;
    try {
      const answer = await upload(form, (share) => {
        bar.value = share;
        text.textContent = share < 1 ? `Sent ${Math.round(100 * share)} %` : "Reading the files\u2026";
      }, sending.signal);
      this.#done(answer);
    } catch (error) {
      this.state.replaceChildren();
      if (!cancelled(error)) this.page.fail(error, this.problem);
    }
    this.send.disabled = this.files.length === 0;
  }

  #done({ exams, problems, problems_left_out: more }) {
    if (exams.length === 1 && problems.length === 0) {
      go(address("exam", exams[0].key));
      return;
    }
    this.files = [];
    this.#show();
    this.state.replaceChildren(
      ...[
        element("p", {}, exams.length ? `Read ${count(exams.length, "exam")}:` : "No exam could be read."),
        exams.length > 0 && element("ul", {}, exams.map(({ key, id }) => element("li", {}, element("a", { href: address("exam", key) }, id)))),
        problems.length > 0 && element("p", {}, `${count(problems.length + more, "problem")}:`),
        problems.length > 0 && element("ul", { class: "warning" }, problems.map((one) => element("li", {}, problemText(one)))),
      ].filter(Boolean));
  }

  run() {
    return false;
  }

  release() {}

  update() {}

  leave() {
    this.ending.abort(new DOMException("the view was left", "AbortError"));
  }
}

function problemText({ file, what, found, expected, advice }) {
  const parts = [what, found && `found: ${found}`, expected && `expected: ${expected}`, advice];
  return `${file ? `${file}: ` : ""}${parts.filter(Boolean).join("; ")}`;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
