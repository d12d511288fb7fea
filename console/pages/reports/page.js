// Reports: the numbers as a table, each opening the items that it counts, and the first of them as a chart.
import { html } from "../../vendor/preact.js";
import { useLive } from "../../lib/live.js";
import { refine } from "../../lib/router.js";
import { Choice, Field, Link, Page, Table } from "../../lib/ui.js";
import { number, t, word } from "../../lib/words.js";
import { ItemList } from "../items/list.js";
import { Chart } from "./chart.js";

/** What each report can have a row of, the usual first. @type {Record<string, string[]>} */
const REPORTS = {
  progress: ["site"],
  contractors: ["organisation", "site"],
  ageing: ["site", "organisation", "severity", "type"],
  burndown: ["day", "week", "month"],
  "time-to-close": ["site", "organisation", "resolution", "week", "month"],
  "on-time": ["site", "organisation", "resolution", "week", "month"],
  returns: ["organisation", "site", "week", "month"],
  counts: ["type", "location", "root_cause"],
};
const OF_A_PERIOD = ["burndown", "time-to-close", "on-time", "returns", "counts"];

/** @param {any} props */
export default function Reports({ place, session }) {
  const name = place.parts[1] in REPORTS ? place.parts[1] : "progress";
  const { site_id = "", from = "", to = "", counted_in = "" } = place.query;
  const by = REPORTS[name].includes(place.query.by) ? place.query.by : REPORTS[name][0];
  const sites = useLive("/sites", { query: { limit: 100 } });
  const period = OF_A_PERIOD.includes(name) ? { from, to } : {};
  const live = useLive(`/reports/${name}`, { query: { by, site_id, ...period } });
  const report = live.data;
  return html`<${Page} title=${t(`report.${name}`)} live=${live}>
    <nav aria-label=${t("nav.reports")} class="tabs"><ul>${Object.keys(REPORTS).map((one) => html`<li key=${one}>
      <${Link} to=${`/reports/${one}`} query=${{ site_id }} aria-current=${one === name ? "page" : undefined}>${t(`report.${one}`)}<//></li>`)}</ul></nav>
    <p class="soft">${t(`report.${name}.what`)}</p>
    <div class="filters">
      <${Choice} label=${t("site")} value=${site_id} onChange=${(/** @type {string} */ chosen) => refine({ site_id: chosen, counted_in: "" })}
        options=${[["", t("report.all")], ...(sites.data?.sites ?? []).map((/** @type {any} */ site) => [site.id, site.name])]} />
      <${Choice} label=${t("report.by")} value=${by} onChange=${(/** @type {string} */ chosen) => refine({ by: chosen, counted_in: "" })} options=${REPORTS[name].map((one) => [one, word("by", one)])} />
      ${OF_A_PERIOD.includes(name) && html`
        <${Field} label=${t("report.from")} type="date" value=${from} error=${live.error?.of?.("from")} onChange=${(/** @type {any} */ event) => refine({ from: event.target.value, counted_in: "" })} />
        <${Field} label=${t("report.to")} type="date" value=${to} error=${live.error?.of?.("to")} onChange=${(/** @type {any} */ event) => refine({ to: event.target.value, counted_in: "" })} />`}
    </div>
    ${report && html`<div class="stack"><${Chart} title=${t(`report.${name}`)} rows=${report.rows} figure=${columns(report)[0]} /><${Figures} report=${report} name=${name} /></div>`}
    ${counted_in && html`<section aria-labelledby="counted"><h2 id="counted">${t("report.counted")}</h2><${ItemList} query=${{ counted_in }} session=${session} seconds=${0} /></section>`}
  <//>`;
}

/** The figures and rates of a report's rows. @param {any} report @returns {string[]} */
function columns(report) {
  return Object.keys(report.total ?? report.rows[0] ?? {}).filter((one) => one !== "key" && one !== "name");
}

/** @param {{report: any, name: string}} props */
function Figures({ report, name }) {
  const rows = [...report.rows, ...(report.total ? [{ ...report.total, name: t("report.total") }] : [])];
  /** @type {[string, (row: any) => any, string?][]} */
  const shown = columns(report).map((one) => [word("figure", one), (/** @type {any} */ row) => html`<${Figure} value=${row[one]} rate=${one.endsWith("_rate")} />`, "number"]);
  return html`<${Table} caption=${t(`report.${name}`)} rows=${rows} id=${(/** @type {any} */ row) => row.key ?? "total"}
    columns=${[[word("by", report.by), (/** @type {any} */ row) => row.name || "–"], ...shown]} />`;
}

/** A number, which opens the items that it counts; null is a dash. @param {{value: any, rate: boolean}} props */
function Figure({ value, rate }) {
  if (value === null) return "–";
  if (typeof value === "number") return rate ? `${number(Math.round(value * 1000) / 10)} %` : number(value);
  const counted = new URLSearchParams(value.items.split("?")[1]).get("counted_in");
  return html`<button type="button" class="plain figure" onClick=${() => refine({ counted_in: counted })}>${number(value.count)}</button>`;
}
