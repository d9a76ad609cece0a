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
    view: view || "list",
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

/** A setting of this browser; without storage (private windows) the settings last for the page. */
export const settings = {
  values: new Map(),
  get(name, otherwise) {
    try {
      return localStorage.getItem(`mrknee.${name}`) ?? otherwise;
    } catch {
      return this.values.get(name) ?? otherwise;
    }
  },
  set(name, value) {
    this.values.set(name, value);
    try {
      localStorage.setItem(`mrknee.${name}`, value);
    } catch {
      // kept in `values`
    }
  },
};
