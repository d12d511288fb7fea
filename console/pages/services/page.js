// The engine room's first page: the circuit of every service, and what the operator may do about it.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Badge, Button, Dialog, Facts, Form, Moment, Page, Problem, Table } from "../../lib/ui.js";
import { duration, number, t, word } from "../../lib/words.js";

/** @type {Record<string, string>} */
const KINDS = { closed: "good", half_open: "unsure", open: "bad" };

/** Those with events of their own. */
const SENDERS = ["users", "orders", "tasks", "sites"];

/** @param {any} props */
export default function Services({ session }) {
  const live = useLive("/health", { seconds: 1 });
  const [forcing, setForcing] = useState(/** @type {string | null} */ (null));
  const circuits = Object.entries(live.data?.upstreams ?? {});
  return html`<${Page} title=${t("nav.services")} live=${live}><div class="stack">
    <p role="status">${t(live.data?.status === "healthy" ? "services.well" : "services.unwell")}</p>
    <ul class="cards">${circuits.map(([name, circuit]) => html`<${Circuit} key=${name} name=${name} circuit=${circuit}
      force=${session.operates ? () => setForcing(name) : null} />`)}</ul>
    ${session.inspects && html`<div class="stack"><${Gateway} /><${Events} services=${circuits.map(([name]) => name).filter((name) => SENDERS.includes(name))} /></div>`}
    <${Dialog} title=${t("circuit.force", { name: forcing })} open=${forcing !== null} onClose=${() => setForcing(null)}>
      <${Force} name=${forcing} done=${() => {
        setForcing(null);
        live.again();
      }} /><//>
  </div><//>`;
}

/** What the gateway has counted since it started. */
function Gateway() {
  const live = useLive("/status", { seconds: 5 });
  const { data } = live;
  return html`<section><h2>${t("gateway")}</h2><${Problem} error=${live.error} />
    ${data && html`<${Facts} of=${[
      [t("gateway.version"), data.version],
      [t("gateway.started"), html`<${Moment} at=${data.started_at} />`],
      [t("gateway.processes"), number(data.processes.length)],
      [t("gateway.answers"), counts(data.answers)],
      [t("gateway.refusals"), counts(data.refusals)],
      [t("gateway.retries"), counts(data.retries)],
    ]} />`}</section>`;
}

/** @param {Record<string, number>} by */
function counts(by) {
  return Object.keys(by).length === 0 ? "–" : html`<ul class="plain">${Object.entries(by).map(([name, count]) => html`<li key=${name}>${name}: ${number(count)}</li>`)}</ul>`;
}

/** Events that services tell each other, and that are not delivered yet. @param {{services: string[]}} props */
function Events({ services }) {
  return html`<section><h2>${t("events")}</h2><p class="soft">${t("events.what")}</p>
    ${services.map((name) => html`<${Outbox} key=${name} name=${name} />`)}</section>`;
}

/** @param {{name: string}} props */
function Outbox({ name }) {
  const live = useLive(path`/outbox/${name}`, { seconds: 10 });
  const { data } = live;
  const more = data?.is_exact === false ? "+" : "";
  return html`<h3>${name}</h3><${Problem} error=${live.error} />
    ${data?.taken_up_by_none > 0 && html`<p class="unsure">${t("events.fresh", { count: data.taken_up_by_none, number: `${number(data.taken_up_by_none)}${more}`, time: duration(data.oldest_seconds) })}</p>`}
    ${data && (data.destinations.length > 0 || data.taken_up_by_none === 0) && html`<${Table} caption=${t("events.of", { name })} empty=${t("events.none")} rows=${data.destinations} id=${(/** @type {any} */ one) => one.destination} columns=${[
      [t("events.to"), (/** @type {any} */ one) => one.destination],
      [t("events.waiting"), (/** @type {any} */ one) => `${number(one.waiting)}${more}`, "number"],
      [t("events.oldest"), (/** @type {any} */ one) => (one.waiting ? duration(one.oldest_seconds) : "–"), "number"],
      [t("events.given_up"), (/** @type {any} */ one) => html`<span class=${one.given_up ? "bad" : ""}>${number(one.given_up)}</span>`, "number"],
    ]} />`}`;
}

/** @param {any} props */
function Circuit({ name, circuit, force }) {
  return html`<li class="card stack">
    <header class="title"><h2>${name}</h2><${Badge} kind=${KINDS[circuit.state]}>${word("circuit", circuit.state)}<//></header>
    <p>${why(circuit)}</p>
    ${circuit.calls !== undefined && html`<${Facts} of=${[
      [t("circuit.calls"), number(circuit.calls)],
      [t("circuit.failures"), `${number(circuit.failures)} (${number(Math.round(circuit.failure_rate * 100))} %)`],
      [t("circuit.slow"), `${number(Math.round(circuit.slow_share * 100))} %`],
      [t("circuit.opened"), circuit.opened_at && html`<${Moment} at=${circuit.opened_at} />`],
      [t("circuit.probe"), circuit.last_probe && html`<span class=${circuit.last_probe.ok ? "good" : "bad"}>${t(circuit.last_probe.ok ? "circuit.ready" : "circuit.not_ready")}</span>`],
    ]} />`}
    ${force && html`<${Button} onClick=${force}>${t("circuit.force.do")}<//>`}
  </li>`;
}

/** Why a circuit is as it is, in one sentence. @param {any} circuit */
function why(circuit) {
  if (circuit.forced) return t("circuit.why.forced");
  if (circuit.held_up) return t("circuit.why.held_up");
  if (circuit.state === "open") return t("circuit.why.open", { wait: circuit.retry_in === null ? "" : duration(circuit.retry_in ?? 0) });
  if (circuit.state === "half_open") return t("circuit.why.half_open");
  if (circuit.last_probe && !circuit.last_probe.ok) return t("circuit.why.not_ready");
  return t("circuit.why.closed");
}

/** @param {{name: string, done: () => void}} props */
function Force({ name, done }) {
  const [state, setState] = useState("auto");
  const target = path`/admin/circuits/${name}`;
  return html`<${Form} does=${() => send("POST", target, { state })} done=${done} label=${t("circuit.force.do")}
    request=${() => ["POST", target, { state }]}>
    ${["auto", "open", "closed"].map((one) => html`<label class="check" key=${one}>
      <input type="radio" name="state" checked=${state === one} onChange=${() => setState(one)} /> ${t(`circuit.force.${one}`)}</label>`)}
  <//>`;
}
