// A chart of one figure of each row; the table beside it says the same.
import { html } from "../../vendor/preact.js";
import { number } from "../../lib/words.js";

const WIDTH = 800;
const HEIGHT = 160;
/** More rows than this are too thin to be seen. */
const MOST = 400;

/** @param {{title: string, rows: any[], figure: string | undefined}} props */
export function Chart({ title, rows, figure }) {
  const counts = rows.slice(-MOST).map((row) => (figure === undefined ? 0 : row[figure]?.count ?? 0));
  const most = Math.max(1, ...counts);
  if (counts.length < 2) return null;
  const step = WIDTH / counts.length;
  return html`<figure class="chart"><svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${title} preserveAspectRatio="none">
    ${counts.map((count, at) => html`<rect key=${at} x=${at * step + step * 0.1} width=${step * 0.8} y=${HEIGHT - (count / most) * HEIGHT} height=${(count / most) * HEIGHT} />`)}
  </svg><figcaption class="soft"><span>${rows[Math.max(0, rows.length - MOST)].name}</span><span>max ${number(most)}</span><span>${rows[rows.length - 1].name}</span></figcaption></figure>`;
}
