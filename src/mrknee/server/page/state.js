/**
 * The state of the page is in its address, after #, which browsers do not send to servers:
 *   #/                            the work list; ?sort, order, q, split, finding, is
 *   #/exam/KEY                    an exam; ?finding, layout, at (series.slice, counted from 1)
 *   #/quiz, #/upload
 */

/** @typedef {{view: string, key: string, query: Object<string, string>}} Place */

/** @returns {Place} */
export function parse(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view = "", ...rest] = path.split("/");
  return {
    view: view === "exam" && rest.join("") === "" ? "list" : view || "list",
    key: decode(rest.join("/")),
    query: Object.fromEntries(new URLSearchParams(search)),
  };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

/** @returns {string} the address of a place; parts without a value are left out */
export function address(view, key = "", query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(set).toString();
  const path = view === "list" ? "" : key ? `${view}/${encodeURIComponent(key)}` : view;
  return `#/${path}${search ? `?${search}` : ""}`;
}

let pending = 0;

/** Goes to a place: a new entry in the browser's history. */
export function go(hash) {
  clearTimeout(pending);
  location.hash = hash;
}

/**
 * Puts the state of the current view into the address without a new entry in the history. Delayed,
 * because browsers limit how often an address may change, and given up if a link was followed meanwhile.
 */
export function remember(hash) {
  clearTimeout(pending);
  const from = location.hash;
  pending = setTimeout(() => location.hash === from && history.replaceState(null, "", hash), 200);
}

/** Texts by name in a storage of the browser; without it (private windows) they last for the page. */
class Store {
  constructor(storage, prefix) {
    this.values = new Map();
    this.prefix = prefix;
    try {
      this.storage = window[storage];
    } catch {
      this.storage = null;
    }
  }

  get(name, otherwise = null) {
    return this.storage?.getItem(this.prefix + name) ?? this.values.get(name) ?? otherwise;
  }

  set(name, value) {
    this.values.set(name, value);
    try {
      this.storage?.setItem(this.prefix + name, value);
    } catch {
      // full, or not allowed: kept in `values`
    }
  }

  delete(name) {
    this.values.delete(name);
    this.storage?.removeItem(this.prefix + name);
  }
}

/** Settings of this browser. */
export const settings = new Store("localStorage", "mrknee.");

/** What lasts as long as this tab. */
const tab = new Store("sessionStorage", "mrknee.");

/** Notes that are not saved yet: path -> content. */
export const drafts = {
  get: (path) => JSON.parse(tab.get(`draft.${path}`, "null")),
  set: (path, content) => tab.set(`draft.${path}`, JSON.stringify(content)),
  delete: (path) => tab.delete(`draft.${path}`),
};

/** @returns {string} parameters of a request for rows of the work list; a finding counts only with a call */
export function listParameters(query, offset, limit) {
  const set = Object.entries({ ...query, offset, limit }).filter(([name, value]) => value !== "" && !(name === "finding" && !query.is));
  return new URLSearchParams(set).toString();
}

/** The work list's search, filters and order, for the way back and for the next exam. */
export const listQuery = {
  get: () => JSON.parse(tab.get("list", '{"sort":"id"}')),
  set: (query) => tab.set("list", JSON.stringify(query)),
};
