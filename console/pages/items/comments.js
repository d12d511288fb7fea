// What was said of a work item, and to whom. What was typed outlives a closed page.
import { html, useState } from "../../vendor/preact.js";
import { path, read, send } from "../../lib/api.js";
import { useDeed, useLive } from "../../lib/live.js";
import { Badge, Button, Choice, Field, Form, Moment, Problem } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { takesPart } from "./roles.js";

/** How long a comment may be reworded, in milliseconds. */
const REWORDED_WITHIN = 15 * 60_000;

/** The audiences that somebody belongs to; the first is the usual. @param {any} site @param {any} session */
function audiences(site, session) {
  if (session.operates || !["customer", "contractor"].includes(site.role)) return ["internal", "parties", "customer"];
  return site.role === "customer" ? ["customer"] : ["parties", "customer"];
}

/** @param {{target: string, site: any, session: any}} props */
export function Comments({ target, site, session }) {
  const live = useLive(`${target}/comments`, { query: { limit: 100 }, seconds: 10 });
  const [later, setLater] = useState(/** @type {{rows: any[], next: string | null} | null} */ (null));
  const more = useDeed();
  const comments = [...(live.data?.comments ?? []), ...(later?.rows ?? [])];
  const next = later ? later.next : live.data?.next;
  const load = () => more.run(async () => {
    const page = await read(`${target}/comments`, { limit: 100, after: next });
    setLater({ rows: [...(later?.rows ?? []), ...page.comments], next: page.next });
  });
  return html`<section aria-labelledby="comments"><h2 id="comments">${t("item.comments")}</h2>
    <${Problem} error=${live.error ?? more.error} />
    ${comments.map((one) => html`<${Comment} key=${one.id} target=${target} comment=${one} session=${session} again=${live.again} />`)}
    ${next && html`<${Button} busy=${more.busy} onClick=${load}>${t("list.more")}<//>`}
    ${takesPart(site, session) && html`<${NewComment} target=${target} choices=${audiences(site, session)} unsent=${`unsent:${session.me.id}:${target}`} again=${live.again} />`}
  </section>`;
}

/** @param {{target: string, comment: any, session: any, again: () => void}} props */
function Comment({ target, comment, session, again }) {
  const [text, setText] = useState(/** @type {string | null} */ (null));
  const address = `${target}${path`/comments/${comment.id}`}`;
  const isNew = Date.now() - Date.parse(comment.created_at) < REWORDED_WITHIN;
  const done = () => {
    setText(null);
    again();
  };
  return html`<article class="card comment">
    <p class="soft"><b>${comment.author.name}</b> ${word("member", comment.author_role)} · <${Badge}>${word("audience", comment.audience)}<//> · <${Moment} at=${comment.created_at} />${comment.edited_at && ` · ${t("item.comment.edited")}`}</p>
    ${text === null ? html`<p class="text">${comment.text}</p>` : html`<${Form} label=${t("save")} done=${done} does=${() => send("PUT", address, { text })} request=${() => ["PUT", address, { text }]}>
      <${Text} label=${t("item.comment.edit")} value=${text} onInput=${setText} /><//>`}
    ${isNew && comment.author.id === session.me.id && html`<${Button} class="plain" onClick=${() => setText(text === null ? comment.text : null)}>${text === null ? t("item.comment.edit") : t("close")}<//>`}
  </article>`;
}

/** @param {{target: string, choices: string[], unsent: string, again: () => void}} props */
function NewComment({ target, choices, unsent, again }) {
  const [[text, key], setText] = useState(() => JSON.parse(localStorage.getItem(unsent) ?? "null") ?? ["", crypto.randomUUID()]);
  const [audience, setAudience] = useState("");
  // Kept before anything else happens: the page may be left at once.
  const say = (/** @type {string} */ typed, id = key) => {
    if (typed) localStorage.setItem(unsent, JSON.stringify([typed, id]));
    else localStorage.removeItem(unsent);
    setText([typed, id]);
  };
  const body = () => ({ text, op_id: key, ...(audience && { audience }) });
  const done = () => {
    say("", crypto.randomUUID());
    again();
  };
  return html`<${Form} label=${t("item.comment")} done=${done} does=${() => send("POST", `${target}/comments`, body())} request=${() => ["POST", `${target}/comments`, body()]}>
    <${Text} label=${t("item.comment.text")} value=${text} onInput=${(/** @type {string} */ typed) => say(typed)} />
    ${choices.length > 1 && html`<${Choice} label=${t("item.comment.for")} value=${audience} onChange=${setAudience} options=${choices.map((one, at) => [at === 0 ? "" : one, word("audience", one)])} />`}
  <//>`;
}

/** @param {{label: string, value: string, onInput: (text: string) => void}} props */
function Text({ label, value, onInput }) {
  return html`<${Field} label=${label}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} required maxlength="10000" value=${value} onInput=${(/** @type {any} */ event) => onInput(event.target.value)}></textarea>`}<//>`;
}
