// To choose somebody.
import { html, useEffect, useState } from "../vendor/preact.js";
import { path, read } from "./api.js";
import { useLive } from "./live.js";
import { refine } from "./router.js";
import { Button, Dialog, Field, Problem } from "./ui.js";
import { t, word } from "./words.js";

/** @param {{onChoose: (user: any) => void}} props */
export function People({ onChoose }) {
  const [sought, setSought] = useState("");
  const live = useLive("/users", { query: { q: sought, limit: 20, total: false } });
  return html`<${Field} label=${t("act_as.search")} type="search" value=${sought} autofocus onInput=${(/** @type {any} */ event) => setSought(event.target.value)} />
    <${Problem} error=${live.error} />
    <ul class="cards">${live.data?.users.map((/** @type {any} */ user) => html`<li key=${user.id}>
      <${Button} onClick=${() => onChoose(user)}>${user.name}<//> <span class="soft">${[user.email, ...(user.roles ?? []).map((/** @type {string} */ role) => word("role", role))].filter(Boolean).join(" · ")}</span></li>`)}</ul>`;
}

/** As many as the API takes at once. */
const MOST = 100;

/**
 * The names of users by their ids, each asked for once and many at a time; null: there is nobody of that id.
 * @param {string[]} ids @returns {Record<string, string | null>}
 */
export function useNames(ids) {
  const [names, setNames] = useState(/** @type {Record<string, string | null>} */ ({}));
  const unknown = [...new Set(ids)].filter((id) => !(id in names)).slice(0, MOST).join(",");
  useEffect(() => {
    if (unknown === "") return undefined;
    const ending = new AbortController();
    read("/users", { id: unknown, limit: MOST, total: false }, ending.signal).then((page) => {
      const found = new Map(page.users.map((/** @type {any} */ user) => [user.id, user.name]));
      setNames((before) => ({ ...before, ...Object.fromEntries(unknown.split(",").map((id) => [id, found.get(id) ?? null])) }));
    }, () => {});
    return () => ending.abort();
  }, [unknown]);
  return names;
}

/** A filter by somebody. @param {{label: string, name: string, id: string}} props */
export function PersonFilter({ label, name, id }) {
  const [choosing, setChoosing] = useState(false);
  const live = useLive(id ? path`/users/${id}` : null);
  const choose = (/** @type {any} */ user) => {
    setChoosing(false);
    refine({ [name]: user?.id });
  };
  return html`<${Field} label=${label}>${(/** @type {any} */ attributes) => html`<div class="deeds">
      <${Button} ...${attributes} aria-label=${`${label}: ${id ? live.data?.name ?? id : t("any")}`} onClick=${() => setChoosing(true)}>${id ? live.data?.name ?? id : t("any")}<//>
      ${id && html`<${Button} class="plain" aria-label=${t("audit.anybody", { label })} onClick=${() => choose(null)}>✕<//>`}
    </div>`}<//>
    <${Dialog} title=${label} open=${choosing} onClose=${() => setChoosing(false)}><${People} onChoose=${choose} /><//>`;
}
