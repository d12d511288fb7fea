// The public API: one function, the envelope opened, errors in words.
import { told } from "./words.js";

/** The gateway's address: the page is at …/console, whatever stands before it. */
export const ROOT = new URL(".", location.href).pathname;

/** Whether this console only shows: the gateway lets its pages change nothing. */
export const readOnly = document.documentElement.dataset.mode === "read-only";

/** How long after a GET without an answer it is asked again. */
const AGAIN_MS = 200;

/**
 * @typedef {{field: string, message: string}} FieldError
 * @typedef {{method?: string, body?: unknown, query?: Record<string, unknown>, headers?: Record<string, string>,
 *   signal?: AbortSignal}} Options
 * @typedef {{data: any, etag: string | null, status: number}} Answer
 */

/** A refusal of the API, or none at all. */
export class ApiError extends Error {
  /**
   * @param {number} status 0: there was no answer
   * @param {string} code
   * @param {string} message
   * @param {FieldError[]} details
   * @param {string | null} requestId
   * @param {number} retryAfter in how many seconds to try again; 0: nobody said
   */
  constructor(status, code, message, details = [], requestId = null, retryAfter = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  /** All that is wrong with a field, if anything. @param {string} field */
  of(field) {
    const messages = this.details.filter((detail) => detail.field === field).map((detail) => detail.message);
    return messages.length > 0 ? { field, message: messages.join(" ") } : undefined;
  }
}

/** Whom the console acts as where nobody logs in; null: the machine's own administrator. */
let actingAs = sessionStorage.getItem("act-as");
/** Whether people log in here. */
let asksForLogin = false;
/** @param {boolean} asks */
export function noteLogin(asks) {
  asksForLogin = asks;
}

/** Called when the API no longer knows the caller. */
let onLoggedOut = () => {};

/** @param {() => void} callback */
export function whenLoggedOut(callback) {
  onLoggedOut = callback;
}

export const actAs = {
  get: () => actingAs,
  /** @param {string | null} userId */
  set(userId) {
    actingAs = userId;
    if (userId) sessionStorage.setItem("act-as", userId);
    else sessionStorage.removeItem("act-as");
  },
};

/** A path with a query; values that are empty are left out. @param {string} path @param {Record<string, unknown>} query */
export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}

/** An id or a name as one segment of a path. @param {TemplateStringsArray} texts @param {...unknown} values */
export function path(texts, ...values) {
  return texts.reduce((made, text, at) => made + encodeURIComponent(String(values[at - 1])) + text);
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @param {string} target @param {Options} options @returns {Promise<Answer>} raises ApiError */
export async function ask(target, options = {}) {
  const { method = "GET", body, query = {}, signal } = options;
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json", ...options.headers };
  if (actingAs) headers["X-Act-As"] = actingAs;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const once = () => fetch(ROOT + withQuery(target, query).slice(1), {
    method, headers, signal, credentials: "same-origin", cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  let answer;
  try {
    // What changes nothing is asked once more.
    answer = await (method === "GET" ? once().catch(() => pause(AGAIN_MS).then(once)) : once());
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "no_answer", "");
  }
  const etag = answer.headers.get("ETag");
  if (answer.status === 304 || answer.status === 204) return { data: null, etag, status: answer.status };
  const requestId = answer.headers.get("X-Request-ID");
  let envelope;
  try {
    envelope = await answer.json();
  } catch {
    throw new ApiError(answer.status, "bad_answer", "", [], requestId);
  }
  if (answer.ok) return { data: envelope.data, etag, status: answer.status };
  const { code, message, details = [] } = envelope.error ?? {};
  if (answer.status === 401 && !target.startsWith("/auth/login")) onLoggedOut();
  throw new ApiError(answer.status, code, message, await told(details), requestId, Number(answer.headers.get("Retry-After")) || 0);
}

/** The data of a GET. @param {string} target @param {Record<string, unknown>} [query] @param {AbortSignal} [signal] */
export async function read(target, query, signal) {
  return (await ask(target, { query, signal })).data;
}

/** The data of a deed. @param {string} method @param {string} target @param {unknown} [body] @param {Record<string, string>} [headers] */
export async function send(method, target, body, headers) {
  return (await ask(target, { method, body, headers })).data;
}

/** The same deed at a terminal, where somebody who logs in has a token. @param {string} method @param {string} target @param {unknown} [body] @param {Record<string, string>} [headers] */
export function curl(method, target, body, headers = {}) {
  const words = ["curl", "-X", method, quoted(location.origin + ROOT + target.slice(1))];
  if (asksForLogin) words.push("-H", '"Authorization: Bearer $TOKEN"');
  if (actingAs) words.push("-H", quoted(`X-Act-As: ${actingAs}`));
  for (const [name, value] of Object.entries(headers)) words.push("-H", quoted(`${name}: ${value}`));
  if (body !== undefined) words.push("-H", quoted("Content-Type: application/json"), "-d", quoted(JSON.stringify(body)));
  return words.join(" ");
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
