// The words of the console in the reader's language, and numbers and times as they write them.

/** The catalogue of each language, of which only the reader's is loaded. @type {Record<string, () => Promise<any>>} */
const CATALOGUES = { en: () => import("./words.en.js"), ru: () => import("./words.ru.js") };

/** The language in use. */
export const language = (() => {
  const chosen = localStorage.getItem("language") ?? navigator.language.slice(0, 2);
  return chosen in CATALOGUES ? chosen : "en";
})();
document.documentElement.lang = language;

const plural = new Intl.PluralRules(language);
/** @type {Record<string, any>} */
const catalogue = (await CATALOGUES[language]()).default;

/** @param {string} chosen */
export function speak(chosen) {
  localStorage.setItem("language", chosen);
  location.reload();
}

/**
 * The words for a key, with {name} replaced; of words that differ by number, those for `values.count`.
 * @param {string} key @param {Record<string, unknown>} [values] @returns {string}
 */
export function t(key, values = {}) {
  const found = catalogue[key] ?? key;
  const words = typeof found === "string" ? found : found[plural.select(Number(values.count))] ?? found.other;
  return words.replace(/\{(\w+)\}/g, (/** @type {string} */ _, /** @type {string} */ name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : String(value ?? "");
  });
}

/** Words for a value of the API, which is shown as it is if there are none. @param {string} kind @param {unknown} value */
export function word(kind, value) {
  const key = `${kind}.${value}`;
  return key in catalogue ? t(key) : String(value ?? "");
}

/** What the API says beside fields in other languages than its own. @type {Record<string, () => Promise<any>>} */
const DETAILS = { ru: () => import("./details.ru.js") };

/** What the API says beside fields, as far as there are words for it. @param {{field: string, message: string}[]} details */
export async function told(details) {
  if (details.length === 0 || !(language in DETAILS)) return details;
  /** @type {[RegExp, string][]} */
  const known = (await DETAILS[language]().catch(() => ({ default: [] }))).default;
  return details.map(({ field, message }) => {
    const [pattern, words] = known.find(([one]) => one.test(message)) ?? ["", ""];
    return { field, message: message.replace(pattern, words) };
  });
}

const numbers = new Intl.NumberFormat(language);
/** @param {number} value */
export const number = (value) => numbers.format(value);

const amounts = new Intl.NumberFormat(language, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
/** A sum of money, which the API writes exactly, as text. @param {string | null | undefined} value */
export const money = (value) => (value == null ? "" : amounts.format(Number(value)));

const times = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
const days = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: "UTC" });
/** @param {string | null | undefined} value */
export const time = (value) => (value ? times.format(new Date(value)) : "");
/** A day of the calendar, the same in every time zone. @param {string | null | undefined} value */
export const day = (value) => (value ? days.format(new Date(`${value}T00:00:00Z`)) : "");

/** The beginning of a day here, so many days later. @param {string} value @param {number} [later] */
export function dayBegins(value, later = 0) {
  if (!value) return undefined;
  const at = new Date(`${value}T00:00:00`);
  at.setDate(at.getDate() + later);
  return at.toISOString();
}

const ago = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
/** @param {string} value */
export function since(value) {
  const seconds = (Date.parse(value) - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
  return ago.format(Math.round(seconds / size), unit);
}

/** How long, in seconds. @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return `${number(Math.round(seconds * 1000))} ${t("unit.ms")}`;
  if (seconds < 120) return `${number(Math.round(seconds * 10) / 10)} ${t("unit.s")}`;
  if (seconds < 7200) return `${number(Math.round(seconds / 60))} ${t("unit.min")}`;
  return `${number(Math.round(seconds / 3600))} ${t("unit.h")}`;
}
