// A chart of figures of each row; the table beside it says the same.
import { html } from "../../vendor/preact.js";
import { number, t, word } from "../../lib/words.js";

const WIDTH = 800;
const HEIGHT = 160;
/** More rows than these are too many to be seen. */
const MOST = 400;
const MOST_BARS = 12;

/** A rate or a time, as exact as the API gives it. @param {number} value @param {boolean} isRate */
export const written = (value, isRate) => (isRate ? `${number(value * 100)} %` : number(value));

/** @param {{title: string, rows: any[], figures: string[], isOverTime: boolean, name: (row: any) => string}} props of two figures the second is a part of the first */
export function Chart({ title, rows, figures, isOverTime, name }) {
  if (rows.length < 2 || figures.length === 0) return null;
  const count = (/** @type {any} */ row, /** @type {string} */ figure) => (typeof row[figure] === "number" ? row[figure] : row[figure]?.count ?? 0);
  const isRate = figures[0].endsWith("_rate");
  if (!isOverTime) {
    const sorted = [...rows].sort((one, other) => count(other, figures[0]) - count(one, figures[0])).slice(0, MOST_BARS);
    const most = isRate ? 1 : Math.max(1, count(sorted[0], figures[0]));
    return html`<figure class="chart" aria-hidden="true"><div class="bars">${sorted.map((row) => html`<span key=${row.key}>${name(row)}</span><b class="number">${written(count(row, figures[0]), isRate)}</b>
      <svg viewBox="0 0 100 10" preserveAspectRatio="none"><rect width=${(count(row, figures[0]) / most) * 100} height="10" /></svg>`)}</div>
      <figcaption class="soft">${word("figure", figures[0])}</figcaption></figure>`;
  }
  const shown = rows.slice(-MOST);
  const most = isRate ? 1 : Math.max(1, ...shown.map((row) => count(row, figures[0])));
  const step = WIDTH / shown.length;
  return html`<figure class="chart"><svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${title} preserveAspectRatio="none">
    ${figures.map((figure, at) => shown.map((row, place) => html`<rect key=${`${figure}${place}`} class=${at === 0 && figures.length > 1 ? "whole" : ""} x=${place * step + step * 0.1} width=${step * 0.8}
      y=${HEIGHT - (count(row, figure) / most) * HEIGHT} height=${(count(row, figure) / most) * HEIGHT} />`))}
  </svg><figcaption class="soft"><span>${name(shown[0])}</span><span>${figures.map((one) => word("figure", one)).join(" · ")} · ${t("report.most", { most: written(most, isRate) })}</span><span>${name(shown[shown.length - 1])}</span></figcaption></figure>`;
}
