// Reports: the numbers as a table, each opening the items that it counts, and the first of them as a chart.
import { html, useEffect } from "../../vendor/preact.js";
import { useLive } from "../../lib/live.js";
import { link, refine } from "../../lib/router.js";
import { Choice, Field, Page, Table, Tabs } from "../../lib/ui.js";
import { day, language, number, t, word } from "../../lib/words.js";
import { ItemList } from "../items/list.js";
import { Chart, written } from "./chart.js";

/** What each report can have a row of, the usual first. @type {Record<string, string[]>} */
const REPORTS = {
  progress: ["site", "week", "month"],
  contractors: ["organisation", "assignee", "site"],
  ageing: ["site", "organisation", "severity", "type"],
  burndown: ["day", "week", "month"],
  "time-to-close": ["site", "organisation", "resolution", "week", "month"],
  "on-time": ["site", "organisation", "resolution", "week", "month"],
  returns: ["organisation", "site", "week", "month"],
  counts: ["type", "location", "root_cause"],
};
/** What the chart of a report shows, if it is not its first figure: what tells whether it gets better. @type {Record<string, string>} */
const TELLING = { progress: "closed_rate", "time-to-close": "median_days", "on-time": "by_final_date_rate", returns: "returned_rate" };
/** How many weeks or months are shown to begin with. @type {Record<string, number>} */
const SPANS = { week: 12, month: 6 };
const OF_A_PERIOD = ["burndown", "time-to-close", "on-time", "returns", "counts"];

/** The reports that somebody with these roles may see. @param {(string | null)[]} roles @param {any} session */
function reportsFor(roles, session) {
  const inner = session.inspects || roles.some((role) => ["engineer", "manager", "executive"].includes(role ?? ""));
  return Object.keys(REPORTS).filter((name) => inner || roles.includes(name === "progress" ? "customer" : "contractor"));
}

/** @param {any} props */
export default function Reports({ place, session }) {
  const sites = useLive("/sites", { query: { limit: 100 } });
  const known = sites.data?.sites ?? [];
  const roles = known.filter((/** @type {any} */ site) => !place.query.site_id || site.id === place.query.site_id).map((/** @type {any} */ site) => site.role);
  const names = reportsFor(roles, session);
  const name = names.includes(place.parts[1]) ? place.parts[1] : names[0];
  if (name === undefined) return html`<${Page} title=${t("nav.reports")} live=${sites}>${sites.data && html`<p>${t("sites.none")}</p>`}<//>`;
  return html`<${Report} key=${name} name=${name} names=${names} sites=${known} place=${place} session=${session} />`;
}

/** @param {{name: string, names: string[], sites: any[], place: any, session: any}} props */
function Report({ name, names, sites, place, session }) {
  const { site_id = "", from = "", to = "", counted_in = "" } = place.query;
  const by = REPORTS[name].includes(place.query.by) ? place.query.by : REPORTS[name][0];
  const period = OF_A_PERIOD.includes(name) ? { from: from || beginning(by, to), to } : {};
  const live = useLive(`/reports/${name}`, { query: { by, site_id, ...period } });
  const report = live.data;
  const overTime = name === "progress" && by !== "site";
  useEffect(() => {
    if (counted_in) document.getElementById("counted")?.scrollIntoView();
  }, [counted_in]);
  return html`<${Page} title=${t(`report.${name}`)} live=${live}>
    <${Tabs} label=${t("nav.reports")} of=${names.map((one) => ({ to: `/reports/${one}`, query: { site_id, from, to }, words: t(`report.${one}`), isHere: one === name }))} />
    <p class="soft">${t(`report.${name}.what`)}</p>
    <div class="filters">
      <${Choice} label=${t("site")} value=${site_id} onChange=${(/** @type {string} */ chosen) => refine({ site_id: chosen, counted_in: "" })}
        options=${[["", t("report.all")], ...sites.map((site) => [site.id, site.name])]} />
      ${REPORTS[name].length > 1 && html`<${Choice} label=${t("report.by")} value=${by} onChange=${(/** @type {string} */ chosen) => refine({ by: chosen, counted_in: "" })} options=${REPORTS[name].map((one) => [one, word("by", one)])} />`}
      ${OF_A_PERIOD.includes(name) && html`
        <${Field} label=${t("report.from")} type="date" value=${from || report?.first_day || ""} error=${live.error?.of?.("from")} onChange=${(/** @type {any} */ event) => refine({ from: event.target.value, counted_in: "" })} />
        <${Field} label=${t("report.to")} type="date" value=${to || report?.last_day || ""} error=${live.error?.of?.("to")} onChange=${(/** @type {any} */ event) => refine({ to: event.target.value, counted_in: "" })} />`}
    </div>
    ${report && html`<div class="stack"><${Chart} title=${t(`report.${name}`)} rows=${overTime ? summed(report.rows) : report.rows} figures=${overTime ? ["items", "closed"] : [TELLING[name] ?? columns(report)[0]]}
      isOverTime=${isTime(by)} name=${(/** @type {any} */ row) => shownName(name, by, row)} /><${Figures} report=${report} name=${name} shares=${!overTime} place=${place} /></div>`}
    ${counted_in && html`<section key=${counted_in} class="counted" aria-labelledby="counted"><h2 id="counted">${[t("report.counted"), ...countedIn(report, counted_in, (row) => shownName(name, by, row))].join(" · ")}</h2><${ItemList} query=${{ counted_in }} session=${session} seconds=${0} /></section>`}
  <//>`;
}

/** The figures and rates of a report's rows. @param {any} report @returns {string[]} */
function columns(report) {
  return Object.keys(report.total ?? report.rows[0] ?? {}).filter((one) => one !== "key" && one !== "name");
}

/** What there was at the end of each time. @param {any[]} rows */
function summed(rows) {
  let items = 0, closed = 0;
  return rows.map((row) => ({ ...row, items: { count: (items += row.items.count) }, closed: { count: (closed += row.closed.count) } }));
}

/** The figure whose items are shown, and the name of its row if it is not the total. @param {any} report @param {string} counted @param {(row: any) => string} nameOf */
function countedIn(report, counted, nameOf) {
  const asked = new URLSearchParams(counted.split("?")[1]);
  const row = report?.rows.find((/** @type {any} */ one) => one.key === asked.get("key"));
  return [word("figure", asked.get("figure")), ...(row ? [nameOf(row)] : [])];
}

/** @param {{report: any, name: string, shares: boolean, place: any}} props */
function Figures({ report, name, shares, place }) {
  const rows = [...report.rows, ...(report.total && report.rows.length > 1 ? [{ ...report.total, name: t("report.total") }] : [])];
  /** @type {[string, (row: any) => any, string?][]} */
  const shown = columns(report).filter((one) => shares || !one.endsWith("_rate")).map((one) => [word("figure", one), (/** @type {any} */ row) => html`<${Figure} value=${row[one]} rate=${one.endsWith("_rate")} place=${place} />`, "number"]);
  return html`<${Table} caption=${t(`report.${name}`)} rows=${rows} id=${(/** @type {any} */ row) => row.key ?? "total"}
    columns=${[[word("by", report.by), (/** @type {any} */ row) => shownName(name, report.by, row), "name"], ...shown]} />`;
}

const months = new Intl.DateTimeFormat(language, { month: "long", year: "numeric", timeZone: "UTC" });
const isTime = (/** @type {string} */ by) => ["day", "week", "month"].includes(by);

/** The first day that is shown by week or month, if nobody asked for another. @param {string} by @param {string} to */
function beginning(by, to) {
  if (!(by in SPANS)) return "";
  const day = to ? new Date(to) : new Date();
  if (by === "month") return new Date(Date.UTC(day.getUTCFullYear(), day.getUTCMonth() - SPANS.month + 1, 1)).toISOString().slice(0, 10);
  return new Date(day.getTime() - SPANS.week * 7 * 86_400_000).toISOString().slice(0, 10);
}

/** @param {string} report @param {string} by @param {any} row */
function shownName(report, by, row) {
  if (!row.name) return ["organisation", "assignee"].includes(by) ? t("site.nobody") : "–";
  if (row.key === null || !row.key) return row.name;
  if (by === "month") return months.format(new Date(row.key));
  // What is counted at the end of a week is named by that day.
  if (by === "week" && report !== "burndown") return t("report.week", { day: day(row.key) });
  if (isTime(by)) return day(row.key);
  return ["severity", "resolution"].includes(by) ? word(by, row.key) : row.name;
}

/** A number, which opens the items that it counts; null is a dash. @param {{value: any, rate: boolean, place: any}} props */
function Figure({ value, rate, place }) {
  if (value === null) return "–";
  if (typeof value === "number") return written(value, rate);
  const counted = new URLSearchParams(value.items.split("?")[1]).get("counted_in");
  return html`<a class="figure" href=${link(place.path, { ...place.query, counted_in: counted })}>${number(value.count)}</a>`;
}
