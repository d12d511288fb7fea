// A deed to every task that matches: how many they are, one confirmation, and how far it is.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { send } from "../../lib/api.js";
import { useDeed } from "../../lib/live.js";
import { Button, Form, Problem } from "../../lib/ui.js";
import { number, t, word } from "../../lib/words.js";

/** As many as are counted at once. */
const MOST = 10_000;
const AT_ONCE = 5000;
/** What bounds each deed to the tasks that were there when they were counted: so that sending it again does no more. */
const BOUNDS = { retry: "ended_before", cancel: "created_before" };

/** What is meant where the filter names no state. */
const STATES = { retry: ["failed"], cancel: ["pending", "processing"] };

/** @param {{deed: "retry" | "cancel", filter: Record<string, string>, close: () => void}} props */
export function Many({ deed, filter, close }) {
  const target = `/tasks/${deed}`;
  const done = deed === "retry" ? "retried" : "cancelled";
  const count = useDeed();
  const [meant, setMeant] = useState(/** @type {any} */ (null));
  const [total, setTotal] = useState(/** @type {Record<string, number> | null} */ (null));
  const [isOver, setOver] = useState(false);
  const after = useRef(/** @type {string | null} */ (null));
  const isClosed = useRef(false);
  useEffect(() => {
    const given = Object.keys(filter).length > 0 ? filter : { all: true };
    count.run(async () => setMeant(await send("POST", target, { ...given, dry_run: true, limit: MOST })));
    return () => {
      isClosed.current = true;
    };
  }, []);
  if (!meant) return html`<${Problem} error=${count.error} />${!count.error && html`<p aria-busy="true">${t("many.counting")}</p>`}`;

  const words = { count: meant[done], number: `${number(meant[done])}${meant.next ? "+" : ""}` };
  const body = { ...filter, [BOUNDS[deed]]: meant.as_of };
  const act = async () => {
    /** @type {Record<string, number>} */
    const sum = { ...total };
    do {
      const { next, as_of: _, ...part } = await send("POST", target, { ...body, limit: AT_ONCE, ...(after.current && { after: after.current }) });
      for (const [name, value] of Object.entries(part)) sum[name] = (sum[name] ?? 0) + value;
      after.current = next;
      setTotal({ ...sum });
    } while (after.current !== null && !isClosed.current);
  };
  const handled = Object.values(total ?? {}).reduce((all, one) => all + one, 0);
  const { status, ...others } = filter;
  const states = status ? [status] : STATES[deed];
  const said = [states.map((one) => word("task", one)).join(", "), ...Object.values(others)].join(" · ");
  return html`<div class="stack">
    <p>${t(`many.${deed}.what`, words)} <span class="soft">${said}</span></p>
    ${total && html`<div role="status">
      ${!isOver && html`<progress max=${meant[done]} value=${handled} aria-label=${t("task.progress")}></progress>`}
      ${Object.entries(total).filter(([name, value]) => value > 0 || name === done).map(([name, value]) => html`<p key=${name}>${t(`many.${name}`, { count: value })}</p>`)}
    </div>`}
    ${isOver
      ? html`<${Button} class="main" onClick=${close}>${t("close")}<//>`
      : meant[done] > 0 && html`<${Form} danger=${deed === "cancel"} label=${t(`many.${deed}`, words)} does=${act} done=${() => setOver(true)}
          request=${() => ["POST", target, { ...body, limit: MOST }]} />
        ${total && html`<p class="soft">${t("many.stop")}</p>`}`}
  </div>`;
}
