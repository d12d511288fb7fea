// The engine room's first page: the circuit of every service, and what the operator may do about it.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Badge, Button, Dialog, Facts, Form, Moment, Page } from "../../lib/ui.js";
import { duration, number, t, word } from "../../lib/words.js";

/** @type {Record<string, string>} */
const KINDS = { closed: "good", half_open: "unsure", open: "bad" };

/** @param {any} props */
export default function Services({ session }) {
  const live = useLive("/health", { seconds: 1 });
  const [forcing, setForcing] = useState(/** @type {string | null} */ (null));
  const circuits = Object.entries(live.data?.upstreams ?? {});
  return html`<${Page} title=${t("nav.services")} live=${live}>
    <p role="status">${t(live.data?.status === "healthy" ? "services.well" : "services.unwell")}</p>
    <ul class="cards">${circuits.map(([name, circuit]) => html`<${Circuit} key=${name} name=${name} circuit=${circuit}
      force=${session.operates ? () => setForcing(name) : null} />`)}</ul>
    <${Dialog} title=${t("circuit.force", { name: forcing })} open=${forcing !== null} onClose=${() => setForcing(null)}>
      <${Force} name=${forcing} done=${() => {
        setForcing(null);
        live.again();
      }} /><//>
  <//>`;
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
