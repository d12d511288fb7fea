// How many work items each of several questions finds, as buttons that ask it.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { read } from "../../lib/api.js";
import { Button } from "../../lib/ui.js";
import { number } from "../../lib/words.js";

/**
 * How many items each query finds, again with every `turn`; null until it is known.
 * @param {Record<string, Record<string, unknown>>} queries by a name @param {number} turn
 * @returns {Record<string, {count: number | null, isExact: boolean}>}
 */
export function useTally(queries, turn) {
  const key = JSON.stringify(queries);
  const [seen, setSeen] = useState(/** @type {{key: string, counts: Record<string, any>}} */ ({ key, counts: {} }));
  useEffect(() => {
    const ending = new AbortController();
    const say = (/** @type {string} */ name, /** @type {any} */ found) =>
      !ending.signal.aborted && setSeen((before) => ({ key, counts: { ...(before.key === key ? before.counts : {}), [name]: found } }));
    for (const [name, query] of Object.entries(queries)) {
      read("/work-items", { ...query, limit: 1 }, ending.signal).then((page) => say(name, { count: page.total, isExact: page.total_is_exact }), () => say(name, { count: null, isExact: true }));
    }
    return () => ending.abort();
  }, [key, turn]);
  return seen.key === key ? seen.counts : {};
}

/** @param {{label: string, names: string[], words: (name: string) => string, counts: ReturnType<typeof useTally>, chosen: string | undefined, onChoose: (name: string) => void}} props */
export function Tally({ label, names, words, counts, chosen, onChoose }) {
  const shown = (/** @type {any} */ found) => (found?.count == null ? "…" : `${number(found.count)}${found.isExact ? "" : "+"}`);
  return html`<div class="deeds" role="group" aria-label=${label}>${names.map((name) => html`
    <${Button} key=${name} class="count" aria-pressed=${name === chosen ? "true" : "false"} onClick=${() => onChoose(name)}><b>${shown(counts[name])}</b> ${words(name)}<//>`)}</div>`;
}
