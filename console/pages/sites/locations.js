// The locations of a site as a tree.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Button, Choice, Dialog, Field, Form, Link, Problem } from "../../lib/ui.js";
import { t } from "../../lib/words.js";
import { branches, places } from "../items/choices.js";
import { leads } from "../items/roles.js";

/** @param {any} props */
export default function Locations({ site, session }) {
  const live = useLive(path`/sites/${site.id}/locations`);
  const [asked, setAsked] = useState(/** @type {{deed: string, location?: any} | null} */ (null));
  const locations = live.data?.locations ?? [];
  const done = () => {
    setAsked(null);
    live.again();
  };
  const isLead = leads(site, session);
  const target = (/** @type {any} */ one) => path`/sites/${site.id}/locations/${one.id}`;
  const branch = (/** @type {string | null} */ parent) => {
    const here = locations.filter((/** @type {any} */ one) => one.parent_id === parent);
    return here.length > 0 && html`<ul class="tree">${here.map((/** @type {any} */ one) => html`<li key=${one.id}><div class="deeds">
      <${Link} to=${`/sites/${site.id}`} query=${{ location_id: one.id }}>${one.name}<//>
      ${isLead && ["inside", "change", "remove"].map((deed) => html`<${Button} key=${deed} class="plain" aria-label=${`${t(`location.${deed}`)}: ${one.name}`} onClick=${() => setAsked({ deed, location: one })}>${t(`location.${deed}`)}<//>`)}</div>
      ${branch(one.id)}</li>`)}</ul>`;
  };
  const gone = asked?.location;
  return html`<section aria-labelledby="locations"><header class="title"><h2 id="locations">${t("site.locations")}</h2>
      ${isLead && html`<${Button} class="main" onClick=${() => setAsked({ deed: "add" })}>${t("location.add")}<//>`}</header>
    <${Problem} error=${live.error} />
    ${live.data && locations.length === 0 && html`<p class="soft">${t("location.none")}</p>`}
    ${branch(null)}
    <${Dialog} title=${asked === null ? "" : t(`location.${asked.deed}`)} open=${asked !== null} onClose=${() => setAsked(null)}>
      ${asked?.deed === "remove" ? html`<p>${t("location.remove.what", { name: gone.name })}</p>
        <${Form} danger label=${t("location.remove")} done=${done} does=${() => send("DELETE", target(gone))} request=${() => ["DELETE", target(gone)]}>
          ${(/** @type {any} */ error) => error?.code === "location_in_use" && html`<p><${Link} to=${`/sites/${site.id}`} query=${{ location_id: gone.id }}>${t("location.items")}<//></p>`}<//>`
        : asked !== null && html`<${Place} site=${site} locations=${locations} location=${asked.deed === "change" ? asked.location : undefined} parent=${asked.deed === "inside" ? asked.location.id : null} done=${done} />`}
    <//>
  </section>`;
}

/** A location to be made, or changed. @param {{site: any, locations: any[], location?: any, parent: string | null, done: () => void}} props */
function Place({ site, locations, location, parent, done }) {
  const before = location ?? { name: "", parent_id: parent, position: 0 };
  const [said, setSaid] = useState(/** @type {Record<string, any>} */ ({ name: before.name, parent_id: before.parent_id ?? "", position: String(before.position) }));
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setSaid({ ...said, [name]: event?.target ? event.target.value : event });
  const [method, target] = location ? ["PUT", path`/sites/${site.id}/locations/${location.id}`] : ["POST", path`/sites/${site.id}/locations`];
  const body = () => {
    const now = { name: said.name, parent_id: said.parent_id || null, position: Number(said.position) };
    return location ? Object.fromEntries(Object.entries(now).filter(([name, value]) => value !== before[name])) : now;
  };
  // What lies in a location cannot hold it.
  const within = new Set(location ? [location.id, ...branches(locations, location.id).map((one) => one.location.id)] : []);
  return html`<${Form} label=${t("save")} done=${done} does=${() => send(method, target, body())} request=${() => [method, target, body()]}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("site.name")} required maxlength="200" autofocus value=${said.name} error=${error?.of?.("name")} onInput=${set("name")} />
      <${Choice} label=${t("location.within")} value=${said.parent_id} error=${error?.of?.("parent_id")} onChange=${set("parent_id")}
        options=${[["", t("location.top")], ...places(locations).filter(([id]) => !within.has(id))]} />
      <${Field} label=${t("location.position")} hint=${t("location.position.hint")} type="number" min="0" max="1000000" value=${said.position} error=${error?.of?.("position")} onInput=${set("position")} />`}
  <//>`;
}
