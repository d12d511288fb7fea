// Addresses of the console: everything after #, so that it works below any prefix and needs nothing of the server.
import { useEffect, useState } from "../vendor/preact.js";
import { withQuery } from "./api.js";

/** @typedef {{path: string, parts: string[], query: Record<string, string>}} Place */

/** @returns {Place} */
function here() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { path: `/${parts.join("/")}`, parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** A part of an address; a broken escape is shown as it is. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Where the console is, again with each change. */
export function usePlace() {
  const [place, setPlace] = useState(here);
  useEffect(() => {
    const moved = () => setPlace(here());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}

/** The address of a page. @param {string} path @param {Record<string, unknown>} [query] */
export function link(path, query = {}) {
  return `#${withQuery(path, query)}`;
}

/** @param {string} path @param {Record<string, unknown>} [query] */
export function go(path, query) {
  location.hash = link(path, query);
}

/** Change the query of this page and leave no trace in the history. @param {Record<string, unknown>} changed */
export function refine(changed) {
  const place = here();
  history.replaceState(null, "", link(place.path, { ...place.query, ...changed }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}
