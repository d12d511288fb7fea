// A defect, a task or a remark, in under a minute: what, how bad, where. What was typed outlives a closed page.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { ask, path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { link } from "../../lib/router.js";
import { Button, Choice, Field, Form, Link, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { LocationChoice } from "./choices.js";
import { kindsFor } from "./roles.js";

/** @param {{siteId?: string, session: any}} props */
export default function NewItem({ siteId, session }) {
  const sites = useLive("/sites", { query: { limit: 100 } });
  const [site, setSite] = useState(siteId ?? localStorage.getItem("site") ?? "");
  const unsent = `unsent:${session.me.id}`;
  // The item has its id from the start: sent again, also by a page that was opened anew, it is made once.
  const [item, setItem] = useState(() => remembered(unsent) ?? blank());
  // Kept before anything else happens: the page may be left at once.
  const say = (/** @type {Record<string, any>} */ said) => {
    localStorage.setItem(unsent, JSON.stringify(said));
    setItem(said);
  };
  const known = (sites.data?.sites ?? []).filter((/** @type {any} */ one) => kindsFor(one, session).length > 0);
  const chosen = known.find((/** @type {any} */ one) => one.id === site) ?? known[0];
  return html`<${Page} title=${t("item.new")} live=${sites}><div class="narrow">
    ${known.length > 1 && html`<${Choice} label=${t("site")} value=${chosen.id} onChange=${setSite} options=${known.map((/** @type {any} */ one) => [one.id, one.name])} />`}
    ${sites.data && known.length === 0 && html`<p>${sites.data.sites.length ? t("item.new.none") : t("sites.none")}</p>`}
    ${chosen && html`<${Fields} key=${chosen.id} site=${chosen} session=${session} item=${item} setItem=${say} sent=${() => localStorage.removeItem(unsent)} />
      <${Button} class="plain" onClick=${() => say(blank())}>${t("item.new.clear")}<//>`}
  </div><//>`;
}

/** @param {{site: any, session: any, item: Record<string, any>, setItem: (item: any) => void, sent: () => void}} props */
function Fields({ site, session, item, setItem, sent }) {
  const form = useRef(/** @type {HTMLElement | null} */ (null));
  const kinds = kindsFor(site, session);
  const locations = useLive(path`/sites/${site.id}/locations`);
  const last = `location:${session.me.id}:${site.id}`;
  const [location, setLocation] = useState(localStorage.getItem(last) ?? "");
  useEffect(() => localStorage.setItem(last, location), [location]);
  const kind = kinds.includes(item.kind) ? item.kind : kinds[0];
  const isRemark = kind === "customer_remark";
  const known = locations.data?.locations ?? [];
  const isKnown = known.some((/** @type {any} */ one) => one.id === location);
  const [more, setMore] = useState(localStorage.getItem("more") === "true");
  const [made, setMade] = useState(/** @type {any} */ (null));
  useEffect(() => localStorage.setItem("more", String(more)), [more]);
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setItem({ ...item, [name]: event?.target ? event.target.value : event });
  const target = path`/work-items/${item.id}`;
  const body = () => {
    const { id, draft, severity, ...said } = item;
    const named = Object.entries({ ...said, ...(isKnown && { location_id: location }), ...(!isRemark && { severity }), kind }).filter(([, value]) => value !== "");
    return { site_id: site.id, ...Object.fromEntries(named), ...(draft && !isRemark && { draft }) };
  };
  const done = (/** @type {any} */ made) => {
    localStorage.setItem("site", site.id);
    sent();
    // Back leads to where the form was opened, not to an empty one.
    if (!more) return globalThis.location.replace(link(`/items/${made.data.id}`));
    setMade(made.data);
    setItem({ ...blank(), kind: item.kind, severity: item.severity, place: item.place });
    document.getElementById("main")?.scrollIntoView();
    form.current?.querySelector("input")?.focus();
  };
  return html`<div ref=${form}>${made && html`<p role="status" class="good">${t("item.new.done")} <${Link} to=${`/items/${made.id}`}>${made.key ?? ""} ${made.title}<//></p>`}
  <${Form} label=${t("item.register")} done=${done} does=${() => ask(target, { method: "PUT", body: body() })} request=${() => ["PUT", target, body()]}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("item.title")} required maxlength="255" autofocus value=${item.title} error=${error?.of?.("title")} onInput=${set("title")} />
      ${!isRemark && html`<${Choice} label=${word("field", "severity")} value=${item.severity} error=${error?.of?.("severity")} onChange=${set("severity")} options=${["critical", "significant", "minor"].map((one) => [one, word("severity", one)])} />`}
      ${known.length > 0 && html`<${LocationChoice} label=${t("item.location")} locations=${known} value=${isKnown ? location : ""} error=${error?.of?.("location_id")}
        onChange=${setLocation} />`}
      <${Field} label=${t("item.place")} maxlength="500" value=${item.place} error=${error?.of?.("place")} onInput=${set("place")} />
      <${Field} label=${t("item.description")} error=${error?.of?.("description")}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} maxlength="10000" value=${item.description} onInput=${set("description")}></textarea>`}<//>
      ${kinds.length > 1 && html`<${Choice} label=${t("item.kind")} value=${kind} error=${error?.of?.("kind")} onChange=${set("kind")} options=${kinds.map((one) => [one, word("kind", one)])} />`}
      ${!isRemark && html`<label class="check"><input type="checkbox" checked=${item.draft} onChange=${(/** @type {any} */ event) => setItem({ ...item, draft: event.target.checked })} /> ${t("item.draft")}</label>`}
      <label class="check"><input type="checkbox" checked=${more} onChange=${(/** @type {any} */ event) => setMore(event.target.checked)} /> ${t("item.new.more")}</label>
      ${session.operates && html`<${Field} label=${t("step.field.reason")} hint=${t("step.field.reason.hint")} maxlength="2000" value=${item.reason} error=${error?.of?.("reason")} onInput=${set("reason")} />`}
      ${error?.status === 428 && html`<p class="unsure">${t("item.new.made")} <${Link} to=${`/items/${item.id}`} onClick=${sent}>${t("show")}<//></p>`}`}
  <//></div>`;
}

/** @returns {Record<string, any>} */
function blank() {
  return { id: crypto.randomUUID(), kind: "defect", title: "", description: "", severity: "significant", place: "", draft: false, reason: "" };
}

/** What was typed before, if anything. @param {string} key @returns {Record<string, any> | null} */
function remembered(key) {
  const item = JSON.parse(localStorage.getItem(key) ?? "null");
  return item?.title || item?.description ? item : null;
}
