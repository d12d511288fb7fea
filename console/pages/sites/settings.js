// What a site is: its name, days and deadlines.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { ask, path } from "../../lib/api.js";
import { Facts, Field, Form } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";

const SEVERITIES = ["critical", "significant", "minor"];
export const ZONES = Intl.supportedValuesOf("timeZone");

/** What the fields say of a site. @param {any} site @returns {Record<string, string>} */
function written(site) {
  const rules = Object.fromEntries(SEVERITIES.map((one) => [one, String(site.deadline_rules[one] ?? "")]));
  return { name: site.name, time_zone: site.time_zone, calendar: site.calendar ?? "", ...rules };
}

/** @param {any} props */
export function Settings({ site, again }) {
  const target = path`/sites/${site.id}`;
  const [etag, setEtag] = useState("*");
  const [before, setBefore] = useState(() => written(site));
  const [said, setSaid] = useState(before);
  const [saved, setSaved] = useState(false);
  const look = async () => setEtag((await ask(target)).etag ?? "*");
  useEffect(() => {
    look().catch(() => {});
  }, []);
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => {
    setSaved(false);
    setSaid({ ...said, [name]: event.target.value });
  };
  const body = () => {
    const changed = Object.entries(said).filter(([name, value]) => value !== before[name]);
    const rules = changed.filter(([name]) => SEVERITIES.includes(name)).map(([name, value]) => [name, value === "" ? null : Number(value)]);
    const others = changed.filter(([name]) => !SEVERITIES.includes(name)).map(([name, value]) => [name, name === "calendar" ? value.toUpperCase() || null : value]);
    return { ...Object.fromEntries(others), ...(rules.length > 0 && { deadline_rules: Object.fromEntries(rules) }) };
  };
  const headers = { "If-Match": etag };
  const save = async () => {
    try {
      return await ask(target, { method: "PUT", body: body(), headers });
    } catch (error) {
      // The next try is on what is there now.
      if (/** @type {any} */ (error).status === 412) await look();
      throw error;
    }
  };
  const done = (/** @type {any} */ made) => {
    setEtag(made.etag ?? "*");
    setBefore(written(made.data));
    setSaid(written(made.data));
    setSaved(true);
    again();
  };
  return html`<section aria-labelledby="settings" class="stack"><h2 id="settings">${t("site.settings")}</h2>
    <${Facts} of=${[[t("site.key"), site.key]]} />
    <${Form} label=${t("save")} done=${done} does=${save} request=${() => ["PUT", target, body(), headers]}>
      ${(/** @type {any} */ error) => html`
        <${Field} label=${t("site.name")} required maxlength="200" value=${said.name} error=${error?.of?.("name")} onInput=${set("name")} />
        <${Zone} value=${said.time_zone} error=${error?.of?.("time_zone")} onInput=${set("time_zone")} />
        <${Country} value=${said.calendar} error=${error?.of?.("calendar")} onInput=${set("calendar")} />
        <fieldset><legend>${t("site.rules")}</legend><div class="filters">${SEVERITIES.map((one) => html`
          <${Field} key=${one} label=${word("severity", one)} type="number" min="0" max="1000" value=${said[one]} error=${error?.of?.(`deadline_rules.${one}`)} onInput=${set(one)} />`)}</div></fieldset>
        ${saved && html`<p class="good" role="status">${t("saved")}</p>`}`}
    <//></section>`;
}

/** @param {any} props */
export function Zone(props) {
  return html`<${Field} label=${t("site.zone")} hint=${t("site.zone.hint")} required list="zones" ...${props} /><datalist id="zones">${ZONES.map((one) => html`<option value=${one} />`)}</datalist>`;
}

/** @param {any} props */
export function Country(props) {
  return html`<${Field} label=${t("site.country")} hint=${t("site.country.hint")} maxlength="2" ...${props} />`;
}
