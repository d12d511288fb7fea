// One work item: what it is, the steps that its reader may take now, what was said, and what happened.
import { html, useState } from "../../vendor/preact.js";
import { path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { go } from "../../lib/router.js";
import { Badge, Button, Dialog, Facts, Form, Link, Moment, Page } from "../../lib/ui.js";
import { day, t, word } from "../../lib/words.js";
import { Links, Watchers } from "./beside.js";
import { usePaths, useSeen } from "./choices.js";
import { Comments } from "./comments.js";
import { Edit, isOwnDraft, mayEdit } from "./edit.js";
import { History, LastSaid, useHistory } from "./history.js";
import { State } from "./list.js";
import { stepsOf } from "./roles.js";
import { StepForm } from "./step.js";

/** The step that usually comes next in a state. @type {Record<string, string>} */
const USUAL = { draft: "submit", open: "start", in_progress: "report_done", returned: "report_done", ready: "accept", disputed: "settle" };

/** @param {{id: string, session: any}} props */
export default function Item({ id, session }) {
  const target = path`/work-items/${id}`;
  const live = useLive(target, { seconds: 10 });
  const item = live.data;
  const site = useLive(item ? path`/sites/${item.site_id}` : null).data;
  const first = useLive(item?.duplicate_of ? path`/work-items/${item.duplicate_of}` : null).data;
  const paths = usePaths(item ? [item.site_id] : []);
  const names = first ? new Map([...paths, [first.id, `${first.key} ${first.title}`]]) : paths;
  const history = useHistory(item?.key ? target : null, item?.version);
  const [asked, setAsked] = useState(/** @type {string | null} */ (null));
  const steps = item ? stepsOf(item) : [];
  const usual = item?.state === "open" && !item.assignee ? "assign" : steps.includes("admit") ? "admit" : USUAL[item?.state];
  const done = () => {
    setAsked(null);
    live.again();
  };
  const isOwn = item && site && isOwnDraft(item, session);
  const title = asked === "edit" ? t("item.edit") : asked === "delete" ? t("item.delete") : asked === null ? "" : word("step", asked);
  return html`<${Page} title=${item ? `${item.key ?? ""} ${item.title}`.trim() : t("item")} live=${live}
    deeds=${item && site && html`${mayEdit(item, site, session) && html`<${Button} onClick=${() => setAsked("edit")}>${t("item.edit")}<//>`}
      ${isOwn && html`<${Button} class="danger" onClick=${() => setAsked("delete")}>${t("item.delete")}<//>`}`}>
    ${item && html`<div class="stack">
      <p><${State} item=${item} /> ${item.severity && html`<${Badge}>${word("severity", item.severity)}<//>`} ${item.resolution && word("resolution", item.resolution)}</p>
      <${LastSaid} rows=${history.rows} item=${item} />
      ${steps.length > 0 && html`<div class="deeds" role="group" aria-label=${t("item.steps")}>${steps.map((/** @type {string} */ one) => html`
        <${Button} key=${one} class=${one === "void" ? "danger" : one === usual ? "main" : ""} onClick=${() => setAsked(one)}>${word("step", one)}<//>`)}</div>`}
      ${item.description && html`<p class="text">${item.description}</p>`}
      <${Facts} of=${[
        [t("site"), html`<${Link} to=${`/sites/${item.site_id}`}>${site?.name ?? t("site.show")}<//>`],
        [t("item.kind"), word("kind", item.kind)],
        [t("item.due"), item.due_on && `${day(item.due_on)}${item.original_due_on && item.original_due_on !== item.due_on ? ` (${t("item.due.first", { day: day(item.original_due_on) })})` : ""}`],
        [t("item.assignee"), item.assignee?.name],
        [t("item.organisation"), item.organisation],
        [t("item.priority"), item.priority],
        [t("item.location"), [paths.get(item.location_id) ?? item.location, item.place, item.axes].filter(Boolean).join(", ")],
        [t("item.type"), [item.type, item.subtype].filter(Boolean).join(", ")],
        [t("item.root_cause"), item.root_cause],
        [t("item.subject"), item.subject],
        [t("item.requirements"), item.requirement_refs?.join("; ")],
        [t("item.tags"), item.tags?.join(", ")],
        [t("item.duplicate_of"), item.duplicate_of && html`<${Link} to=${`/items/${item.duplicate_of}`}>${names.get(item.duplicate_of) ?? t("show")}<//>`],
        [t("item.customer"), item.visible_to_customer === undefined ? null : t(item.visible_to_customer ? "yes" : item.kind === "customer_remark" ? "item.customer.author" : "no")],
        [t("item.reopened"), item.reopen_count > 0 ? item.reopen_count : null],
        [t("item.author"), item.author?.name],
        [t("created"), html`<${Moment} at=${item.created_at} />`],
        [t("item.closed"), item.closed_at ? html`<${Moment} at=${item.closed_at} />` : item.done_on && day(item.done_on)],
      ]} />
      ${site && html`<${Comments} target=${target} session=${session} site=${site} />`}
      ${site && item.key && html`<${Watchers} target=${target} session=${session} site=${site} /><${Links} target=${target} session=${session} site=${site} />`}
      ${item.key && html`<${History} history=${history} names=${names} />`}
      <${Dialog} title=${title} open=${asked !== null} onClose=${() => setAsked(null)}>
        ${asked === "edit" ? html`<${Edit} item=${item} site=${site} session=${session} etag=${live.etag} done=${done} again=${live.again} />`
          : asked === "delete" ? html`<${Delete} item=${item} etag=${live.etag} again=${live.again} />`
          : asked !== null && html`<${StepForm} item=${item} site=${site} step=${asked} session=${session} done=${done} again=${live.again} />`}
      <//>
    </div>`}
  <//>`;
}

/** @param {{item: any, etag: string | null, again: () => void}} props */
function Delete({ item, etag, again }) {
  const seen = useSeen(item, again, etag);
  const target = path`/work-items/${item.id}`;
  return html`<p>${t("item.delete.what")}</p>
    <${Form} danger label=${t("item.delete")} does=${() => seen.send("DELETE", target)} done=${() => go("/items", { view: "drafts" })} request=${() => ["DELETE", target, undefined, seen.headers]} />`;
}
