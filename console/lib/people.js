// To choose somebody.
import { html, useState } from "../vendor/preact.js";
import { path } from "./api.js";
import { useLive } from "./live.js";
import { refine } from "./router.js";
import { Button, Dialog, Field, Problem } from "./ui.js";
import { t } from "./words.js";

/** @param {{onChoose: (user: any) => void}} props */
export function People({ onChoose }) {
  const [sought, setSought] = useState("");
  const live = useLive("/users", { query: { q: sought, limit: 20, total: false } });
  return html`<${Field} label=${t("act_as.search")} type="search" value=${sought} autofocus onInput=${(/** @type {any} */ event) => setSought(event.target.value)} />
    <${Problem} error=${live.error} />
    <ul class="cards">${live.data?.users.map((/** @type {any} */ user) => html`<li key=${user.id}>
      <${Button} onClick=${() => onChoose(user)}>${user.name}<//> <span class="soft">${user.email}</span></li>`)}</ul>`;
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
