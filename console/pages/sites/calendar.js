// Which days a site works, by month; a manager decides otherwise for single days.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { refine } from "../../lib/router.js";
import { Button, Choice, Dialog, Field, Form, Problem, Table } from "../../lib/ui.js";
import { day as written, language, t } from "../../lib/words.js";
import { leads } from "../items/roles.js";

const DAY = 86_400_000;
const months = new Intl.DateTimeFormat(language, { month: "long", year: "numeric", timeZone: "UTC" });
const weekdays = new Intl.DateTimeFormat(language, { weekday: "short", timeZone: "UTC" });
const days = new Intl.DateTimeFormat(language, { dateStyle: "full", timeZone: "UTC" });
const countries = new Intl.DisplayNames(language, { type: "region" });
/** Monday first. A Monday began at 345,600,000 ms. */
const WEEK = [0, 1, 2, 3, 4, 5, 6].map((number) => weekdays.format(new Date(4 * DAY + number * DAY)));

/** The first day of the month that is so many after another. @param {string} month @param {number} by */
function monthAfter(month, by) {
  const [year, number] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number - 1 + by, 1)).toISOString().slice(0, 10);
}

/** @param {any} props */
export default function Calendar({ site, place, session }) {
  // Swedish writes a day as ISO 8601 does.
  const today = new Intl.DateTimeFormat("sv", { timeZone: site.time_zone }).format(new Date());
  const month = /^\d{4}-\d{2}$/.test(place.query.month ?? "") ? place.query.month : today.slice(0, 7);
  const first = `${month}-01`;
  const last = new Date(Date.parse(monthAfter(month, 1)) - DAY).toISOString().slice(0, 10);
  const live = useLive(path`/sites/${site.id}/calendar`, { query: { from: first, to: last } });
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  const isLead = leads(site, session);
  const shown = live.data?.days ?? [];
  const blank = (new Date(first).getUTCDay() + 6) % 7;
  const move = (/** @type {number} */ by) => refine({ month: monthAfter(month, by).slice(0, 7) });
  const done = () => {
    setAsked(null);
    live.again();
  };
  const says = (/** @type {any} */ one) => [days.format(new Date(one.day)), t(one.works ? "calendar.works" : "calendar.rests"), one.holiday, one.is_exception && t("calendar.exception")].filter(Boolean).join(", ");
  return html`<section aria-labelledby="calendar"><div class="calendar"><header class="title"><h2 id="calendar">${months.format(new Date(first))}</h2><div class="deeds">
      <${Button} aria-label=${t("calendar.before")} onClick=${() => move(-1)}>←<//><${Button} aria-label=${t("calendar.after")} onClick=${() => move(1)}>→<//></div></header>
    <p class="soft">${site.calendar ? t("calendar.country", { country: countries.of(site.calendar) }) : t("calendar.none")}</p>
    <${Problem} error=${live.error} />
    <ol class="month">
      ${WEEK.map((name) => html`<li key=${name} class="soft" aria-hidden="true">${name}</li>`)}
      ${[...Array(blank).keys()].map((at) => html`<li key=${`blank${at}`} aria-hidden="true"></li>`)}
      ${shown.map((/** @type {any} */ one) => html`<li key=${one.day} class=${one.works ? "day" : "day rests"} aria-current=${one.day === today ? "date" : undefined}>
        ${isLead ? html`<button type="button" class="plain" aria-label=${says(one)} title=${says(one)} onClick=${() => setAsked(one)}>${Number(one.day.slice(8))}${one.is_exception && "*"}</button>`
          : html`<span aria-hidden="true" title=${says(one)}>${Number(one.day.slice(8))}${one.is_exception && "*"}</span><span class="hidden">${says(one)}</span>`}</li>`)}
    </ol></div>
    <${Table} caption=${t("calendar.special")} empty=${t("calendar.special.none")} id=${(/** @type {any} */ one) => one.day}
      rows=${live.data && shown.filter((/** @type {any} */ one) => one.holiday !== null || one.is_exception)} columns=${[
        [t("calendar.day"), (/** @type {any} */ one) => written(one.day), "name"],
        [t("calendar.what"), (/** @type {any} */ one) => t(one.works ? "calendar.works" : "calendar.rests")],
        [t("calendar.holiday"), (/** @type {any} */ one) => one.holiday],
        ["", (/** @type {any} */ one) => one.is_exception && t("calendar.exception")],
      ]} />
    <${Dialog} title=${asked === null ? "" : days.format(new Date(asked.day))} open=${asked !== null} onClose=${() => setAsked(null)}>
      ${asked !== null && html`<${Day} site=${site} one=${asked} done=${done} />`}<//>
  </section>`;
}

/** @param {{site: any, one: any, done: () => void}} props */
function Day({ site, one, done }) {
  const [until, setUntil] = useState(one.day);
  const [what, setWhat] = useState(one.is_exception ? "again" : one.works ? "rests" : "works");
  // At most a year, so that a slip of the finger is no thousand requests.
  const all = [...Array(Math.max(1, Math.min(366, (Date.parse(until) - Date.parse(one.day)) / DAY + 1 || 1))).keys()].map((at) => new Date(Date.parse(one.day) + at * DAY).toISOString().slice(0, 10));
  /** @param {string} day @returns {[string, string, unknown?]} */
  const request = (day) => (what === "again" ? ["DELETE", path`/sites/${site.id}/calendar/${day}`] : ["PUT", path`/sites/${site.id}/calendar/${day}`, { works: what === "works" }]);
  const decide = async () => {
    for (const day of all) {
      try {
        await send(...request(day));
      } catch (error) {
        // Of several days some may have been as the calendar says before.
        if (/** @type {any} */ (error).code !== "calendar_day_not_found") throw error;
      }
    }
  };
  return html`<p>${t(one.works ? "calendar.works" : "calendar.rests")}${one.holiday && `, ${one.holiday}`}${one.is_exception && `, ${t("calendar.exception")}`}</p>
    <${Form} label=${all.length > 1 ? t("calendar.save", { count: all.length }) : t("save")} done=${done} does=${decide} request=${() => request(one.day)}>
      <${Choice} label=${t("calendar.decide")} value=${what} onChange=${setWhat} options=${["works", "rests", "again"].map((each) => [each, t(`calendar.${each}`)])} />
      <${Field} label=${t("calendar.until")} type="date" min=${one.day} value=${until} onInput=${(/** @type {any} */ event) => setUntil(event.target.value)} />
    <//>`;
}
