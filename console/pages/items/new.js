// A defect, a task or a remark, in under a minute: where, what, how bad.
import { html, useMemo, useState } from "../../vendor/preact.js";
import { ask, path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { go } from "../../lib/router.js";
import { Choice, Field, Form, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";

/** @param {{siteId?: string}} props */
export function NewItem({ siteId }) {
  const sites = useLive("/sites", { query: { limit: 100 } });
  const [site, setSite] = useState(siteId ?? localStorage.getItem("site") ?? "");
  const known = sites.data?.sites ?? [];
  const chosen = known.some((/** @type {any} */ one) => one.id === site) ? site : known[0]?.id;
  return html`<${Page} title=${t("item.new")} live=${sites}><div class="narrow">
    ${known.length > 1 && html`<${Choice} label=${t("site")} value=${chosen} onChange=${setSite} options=${known.map((/** @type {any} */ one) => [one.id, one.name])} />`}
    ${known.length === 0 && html`<p>${t("sites.none")}</p>`}
    ${chosen && html`<${Fields} key=${chosen} site=${chosen} />`}
  </div><//>`;
}

/** @param {{site: string}} props */
function Fields({ site }) {
  const locations = useLive(path`/sites/${site}/locations`);
  const [item, setItem] = useState(/** @type {Record<string, any>} */ ({ kind: "defect", title: "", description: "", severity: "significant", place: "" }));
  // Sent again under the same key, it is made once.
  const key = useMemo(() => crypto.randomUUID(), [site]);
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setItem({ ...item, [name]: event?.target ? event.target.value : event });
  const target = path`/sites/${site}/work-items`;
  const body = () => Object.fromEntries(Object.entries(item).filter(([name, value]) => value !== "" && !(item.kind === "customer_remark" && name === "severity")));
  const headers = { "Idempotency-Key": key };
  const done = (/** @type {any} */ made) => {
    localStorage.setItem("site", site);
    go(`/items/${made.data.id}`);
  };
  return html`<${Form} label=${t("item.register")} done=${done} does=${() => ask(target, { method: "POST", body: body(), headers })}
    request=${() => ["POST", target, body(), headers]}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("item.title")} required maxlength="255" autofocus value=${item.title} error=${error?.of?.("title")} onInput=${set("title")} />
      <${Choice} label=${t("item.severity")} value=${item.severity} onChange=${set("severity")} options=${["critical", "significant", "minor"].map((one) => [one, word("severity", one)])} />
      ${locations.data?.locations.length > 0 && html`<${Choice} label=${t("item.location")} value=${item.location_id ?? ""} error=${error?.of?.("location_id")}
        onChange=${set("location_id")} options=${[["", "–"], ...locations.data.locations.map((/** @type {any} */ one) => [one.id, one.name])]} />`}
      <${Field} label=${t("item.place")} maxlength="500" value=${item.place} error=${error?.of?.("place")} onInput=${set("place")} />
      <${Field} label=${t("item.description")} error=${error?.of?.("description")}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} maxlength="10000" value=${item.description} onInput=${set("description")}></textarea>`}<//>
      <${Choice} label=${t("item.kind")} value=${item.kind} error=${error?.of?.("kind")} onChange=${set("kind")} options=${["defect", "task", "customer_remark"].map((one) => [one, word("kind", one)])} />`}
  <//>`;
}
