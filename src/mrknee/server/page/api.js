/** Requests to the service. All addresses are relative, because the service may run below a path. */

const ROOT = "api/v1/";
const RETRIES = 4;
const LONGEST_WAIT_S = 10;

/** An error that can be shown: what happened, and what to do. */
export class Problem extends Error {
  /**
   * @param {string} title what happened
   * @param {{status?: number, detail?: string, advice?: string, field?: string, found?: string,
   *   expected?: string, code?: string}} [more]
   */
  constructor(title, more = {}) {
    super(title);
    this.name = "Problem";
    this.title = title;
    this.status = more.status ?? 0;
    for (const part of ["detail", "advice", "field", "found", "expected", "code"]) {
      this[part] = more[part] || null;
    }
  }

  /** All parts as sentences. */
  get sentences() {
    const parts = [this.field ? `${this.title} (${this.field})` : this.title];
    if (this.detail) parts.push(this.detail);
    if (this.found) parts.push(`Found: ${this.found}`);
    if (this.expected) parts.push(`Expected: ${this.expected}`);
    if (this.advice) parts.push(this.advice);
    return parts.map((text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : "."));
  }
}

/** Whether an error only says that a request was cancelled because its view was left. */
export function cancelled(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Converts an answer that is no success to a Problem. */
export function problemOf(status, text) {
  let body = {};
  try {
    body = JSON.parse(text) ?? {};
  } catch {
    // not JSON: an answer of a proxy
  }
  if (body.error) body = { ...body.error, title: body.error.what }; // addresses outside /api/v1
  if (status === 401) {
    return new Problem("The service asks for its token", {
      status,
      advice: "Open the link that mrknee serve printed when it started",
    });
  }
  // the title of problem+json names the status, its detail what happened
  const title = body.detail || body.title || `The service answered with the status ${status}`;
  return new Problem(title, { ...body, detail: null, status });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/**
 * Sends a request; while the service is busy (429, 503), waits as long as it says and tries again.
 * @param {string} path below api/v1
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function request(path, options = {}) {
  for (let attempt = 0; ; attempt += 1) {
    let response;
    try {
      response = await fetch(ROOT + path, options);
    } catch (error) {
      if (cancelled(error)) throw error;
      throw new Problem("The service does not answer", {
        advice: "Check that mrknee serve is running and that this computer is connected, then try again",
      });
    }
    if (response.ok) return response;
    if ((response.status === 503 || response.status === 429) && attempt < RETRIES) {
      const asked = Number(response.headers.get("Retry-After"));
      await pause(Math.min(asked > 0 ? asked : 1, LONGEST_WAIT_S), options.signal);
      continue;
    }
    throw problemOf(response.status, await response.text());
  }
}

export async function getJson(path, signal) {
  return (await request(path, { signal })).json();
}

export async function getBytes(path, signal) {
  return (await request(path, { signal })).arrayBuffer();
}

export async function sendJson(method, path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await request(path, { method, headers, body: JSON.stringify(body), signal });
  return response.status === 204 ? null : response.json();
}

/** The address of a part of an exam. */
export function examPath(key, ...parts) {
  return ["exams", key, ...parts].map((part) => encodeURIComponent(part)).join("/");
}

/**
 * Uploads a form. XMLHttpRequest, because fetch does not report the progress of uploads.
 * @param {FormData} form
 * @param {(share: number) => void} onProgress share of the bytes sent, 0 to 1
 * @param {AbortSignal} signal
 */
export function upload(form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const sender = new XMLHttpRequest();
    sender.open("POST", `${ROOT}uploads`);
    sender.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    sender.addEventListener("load", () => {
      if (sender.status >= 200 && sender.status < 300) resolve(JSON.parse(sender.responseText));
      else reject(problemOf(sender.status, sender.responseText));
    });
    sender.addEventListener("error", () =>
      reject(new Problem("The upload was interrupted", { advice: "Check that mrknee serve is running" })),
    );
    sender.addEventListener("abort", () => reject(signal.reason));
    signal.addEventListener("abort", () => sender.abort());
    sender.send(form);
  });
}
