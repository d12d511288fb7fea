// The types of tasks, what holds them up, and the workers that run them.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { ListTable, useList } from "../../lib/list.js";
import { useLive } from "../../lib/live.js";
import { Badge, Button, Dialog, Facts, Field, Form, Link, Moment, Page, Table } from "../../lib/ui.js";
import { duration, number, t } from "../../lib/words.js";
import { Rooms, counted } from "../tasks/rooms.js";

const LIMITS = ["max_running", "max_running_per_user"];

/** @param {any} props */
export default function Types({ session }) {
  const list = useList("/task-types", "task_types", { seconds: 3 });
  const { data: stats } = useLive("/tasks/stats", { seconds: 3 });
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  /** @type {Record<string, any>} */
  const standings = Object.fromEntries((stats?.types ?? []).map((/** @type {any} */ one) => [one.task_type, one]));
  const done = () => {
    setAsked(null);
    list.again();
  };
  const count = (/** @type {string} */ status) => [t(`task.${status}`), (/** @type {any} */ type) => {
    const counts = standings[type.name]?.counts;
    return counts?.[status] ? html`<${Link} to="/tasks" query=${{ task_type: type.name, status }}>${counted(stats, counts, status)}<//>` : "–";
  }, "number brief when"];
  return html`<${Page} title=${t("nav.types")} live=${list}><div class="stack">
    <${Rooms} current="types" session=${session} />
    <section><h2>${t("types")}</h2><${ListTable} list=${list} caption=${t("types")} columns=${[
      [t("task.type"), (/** @type {any} */ type) => html`<${Link} to="/tasks" query=${{ task_type: type.name }}>${type.name}<//>`, "name"],
      [t("task.status"), (/** @type {any} */ type) => html`<${Standing} type=${type} />`, "brief"],
      count("pending"), count("processing"), count("failed"),
      [t("types.limits"), (/** @type {any} */ type) => limits(type), "brief when"],
      [t("types.waited"), (/** @type {any} */ type) => seconds(standings[type.name]?.wait), "brief when"],
      [t("types.ran"), (/** @type {any} */ type) => seconds(standings[type.name]?.run), "brief when"],
      ...(session.operates ? [["", (/** @type {any} */ type) => html`<div class="deeds">
        <${Button} onClick=${() => setAsked({ deed: type.paused ? "resume" : "pause", type })}>${t(type.paused ? "types.resume" : "types.pause")}<//>
        <${Button} onClick=${() => setAsked({ deed: "limit", type })}>${t("types.limit")}<//></div>`]] : []),
    ]} /><p class="soft">${t("types.times")}</p></section>
    ${stats && html`<${Workers} workers=${stats.workers} />`}
    <${Dialog} title=${asked && `${t(`types.${asked.deed}`)}: ${asked.type.name}`} open=${asked !== null} onClose=${() => setAsked(null)}>
      ${asked?.deed === "limit" ? html`<${Limit} type=${asked.type} done=${done} />` : asked && html`<p>${t(`types.${asked.deed}.what`)}</p>
        <${Form} label=${t(`types.${asked.deed}`)} done=${done} does=${() => send("POST", path`/task-types/${asked.type.name}/${asked.deed}`)}
          request=${() => ["POST", path`/task-types/${asked.type.name}/${asked.deed}`]} />`}
    <//>
  </div><//>`;
}

/** @param {{type: any}} props */
function Standing({ type }) {
  if (type.paused) return html`<${Badge} kind="bad">${t("types.paused")}<//>`;
  if (type.workers > 0) return html`<${Badge} kind="good">${t("types.run", { count: type.workers })}<//>`;
  return html`<${Badge} kind="unsure">${t("types.unrun")}<//> ${type.needs.length > 0 && html`<span class="soft">${t("types.needs", { needs: type.needs.join(", ") })}</span>`}`;
}

/** @param {any} type */
function limits(type) {
  const [all, each] = LIMITS.map((one) => type[one] ?? type.limits?.[one] ?? null);
  return [all !== null && t("types.limits.all", { most: all }), each !== null && t("types.limits.each", { most: each })].filter(Boolean).join(", ") || "–";
}

/** @param {{p50: number | null, p95: number | null} | undefined} times */
function seconds(times) {
  return times && times.p50 !== null && times.p95 !== null ? `${duration(times.p50)} / ${duration(times.p95)}` : "–";
}

/** @param {{type: any, done: () => void}} props */
function Limit({ type, done }) {
  const [most, setMost] = useState(/** @type {Record<string, string>} */ (Object.fromEntries(LIMITS.map((one) => [one, type[one] ?? ""]))));
  const target = path`/task-types/${type.name}`;
  const body = () => Object.fromEntries(LIMITS.map((one) => [one, most[one] === "" ? null : Number(most[one])]));
  return html`<p>${t("types.limit.what")}</p>
    <${Form} label=${t("save")} done=${done} does=${() => send("PUT", target, body())} request=${() => ["PUT", target, body()]}>
      ${(/** @type {any} */ error) => LIMITS.map((one) => html`<${Field} key=${one} label=${t(`types.${one}`)} type="number" min="1" max="1000000" value=${most[one]} error=${error?.of?.(one)}
        hint=${type.limits?.[one] ? t("types.declared", { most: type.limits[one] }) : t("types.undeclared")}
        onInput=${(/** @type {any} */ event) => setMost({ ...most, [one]: event.target.value })} />`)}
    <//>`;
}

/** @param {{workers: any}} props */
function Workers({ workers }) {
  return html`<section><h2>${t("workers")}</h2>
    <${Facts} of=${[
      [t("workers.alive"), number(workers.alive)],
      [t("workers.silent"), workers.silent > 0 && html`<span class="bad">${number(workers.silent)}</span>`],
      [t("workers.slots"), t("workers.of", { busy: workers.busy, all: workers.slots })],
      [t("workers.threads"), t("workers.of", { busy: workers.busy_threads, all: workers.threads })],
    ]} />
    ${workers.workers.length > 0 && html`<${Table} caption=${t("workers")} rows=${workers.workers} id=${(/** @type {any} */ one) => one.name} columns=${[
      [t("worker"), (/** @type {any} */ one) => html`${one.name} ${one.leads && html`<${Badge}>${t("worker.leads")}<//>`}`],
      [t("task.status"), (/** @type {any} */ one) => html`<${Badge} kind=${one.alive ? "good" : "bad"}>${t(one.alive ? "worker.alive" : "worker.silent")}<//>`],
      [t("workers.slots"), (/** @type {any} */ one) => t("workers.of", { busy: one.busy, all: one.slots }), "number"],
      [t("workers.threads"), (/** @type {any} */ one) => t("workers.of", { busy: one.busy_threads, all: one.threads }), "number"],
      [t("worker.beat"), (/** @type {any} */ one) => html`<${Moment} at=${one.last_beat_at} />`],
      [t("task.started"), (/** @type {any} */ one) => html`<${Moment} at=${one.started_at} />`],
      [t("types"), (/** @type {any} */ one) => one.task_types.join(", ")],
    ]} />`}
  </section>`;
}
