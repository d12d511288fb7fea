// Where one is logged in.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Badge, Deed, Dialog, Form, Moment, Problem, Table } from "../../lib/ui.js";
import { t } from "../../lib/words.js";

const PROGRAMS = ["Firefox", "Edg", "OPR", "YaBrowser", "Chrome", "Safari", "curl", "Python"];
const SYSTEMS = ["Android", "iPhone", "iPad", "Windows", "Mac OS X", "Linux"];

/** What a program says it is, as people call it. @param {string} agent */
export function program(agent) {
  const of = (/** @type {string[]} */ names) => names.find((name) => agent.toLowerCase().includes(name.toLowerCase()));
  const name = of(PROGRAMS)?.replace("Edg", "Edge").replace("OPR", "Opera");
  return [name, of(SYSTEMS)].filter(Boolean).join(" · ") || agent.slice(0, 40);
}

/** Columns of a table of sessions. @type {[string, (row: any) => any][]} */
export const COLUMNS = [
  [t("account.agent"), (row) => html`<span title=${row.agent}>${program(row.agent)}</span>${row.current && html` <${Badge} kind="good">${t("account.this")}<//>`}`],
  [t("account.address"), (row) => row.address],
  [t("account.since"), (row) => html`<${Moment} at=${row.created_at} />`],
  [t("account.used"), (row) => html`<${Moment} at=${row.refreshed_at} />`],
];

export function Sessions() {
  const live = useLive("/auth/sessions", { seconds: 30 });
  const [ending, setEnding] = useState(/** @type {string | null} */ (null));
  const done = () => {
    setEnding(null);
    live.again();
  };
  const rows = live.data?.sessions;
  const all = ending === "/auth/sessions";
  return html`<section><header class="title"><h2>${t("account.sessions")}</h2>
      ${rows?.length > 1 && html`<${Deed} onClick=${() => setEnding("/auth/sessions")}>${t("account.end.others")}<//>`}</header>
    <${Problem} error=${live.error} />
    <${Table} caption=${t("account.sessions")} rows=${rows} columns=${[
      ...COLUMNS,
      ["", (/** @type {any} */ row) => !row.current && html`<${Deed} onClick=${() => setEnding(path`/auth/sessions/${row.id}`)}>${t("account.end")}<//>`],
    ]} />
    <${Dialog} title=${t(all ? "account.end.others" : "account.end")} open=${ending !== null} onClose=${() => setEnding(null)}>
      <p>${t(all ? "account.end.others.what" : "account.end.what")}</p>
      <${Form} danger label=${t(all ? "account.end.others" : "account.end")} done=${done} does=${() => send("DELETE", String(ending))} request=${() => ["DELETE", String(ending)]} />
    <//>
  </section>`;
}
