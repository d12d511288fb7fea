// The parts that pages are made of.
import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { curl, readOnly } from "./api.js";
import { useDeed } from "./live.js";
import { link } from "./router.js";
import { since, t, time, word } from "./words.js";

/**
 * What went wrong, in words, with the id by which the logs tell more. What a field of the same form says is left to it,
 * and the first such field has the focus.
 * @param {{error: any}} props
 */
export function Problem({ error }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const [rest, setRest] = useState(/** @type {any} */ (null));
  useLayoutEffect(() => {
    const form = element.current?.closest("form");
    const told = new Set([...(form?.querySelectorAll("[data-field]") ?? [])].map((field) => field.getAttribute("data-field")));
    setRest((error?.details ?? []).filter((/** @type {any} */ detail) => !told.has(detail.field)));
    if (told.size > 0) /** @type {HTMLElement | null} */ (form?.querySelector("[data-field] [aria-invalid]"))?.focus();
  }, [error]);
  if (!error) return null;
  const marked = rest && error.details?.length - rest.length;
  const known = t(`error.${error.code}`);
  const said = known !== `error.${error.code}` && (error.code !== "invalid_input" || !marked);
  const words = said ? known : marked > 0 ? t("error.marked") : error.message || t("error.unknown");
  return html`<div class="problem" role="alert" ref=${element}>
    <p>${words} ${error.retryAfter > 0 && t("error.wait", { count: error.retryAfter })}</p>
    ${rest?.length > 0 && html`<ul>${rest.map((/** @type {any} */ detail) => html`<li><b>${word("field", detail.field)}</b> ${detail.message}</li>`)}</ul>`}
    ${error.requestId && !marked && html`<p class="soft">${t("error.request")} <code>${error.requestId}</code></p>`}
  </div>`;
}

/** A page: its title, what can be done there, and whatever `live` brings. @param {any} props */
export function Page({ title, deeds, live, children }) {
  useEffect(() => {
    document.title = `${title} · Siteworks`;
  }, [title]);
  return html`<main id="main" tabindex="-1">
    <header class="title"><h1>${title}</h1><div class="deeds">${!readOnly && deeds}</div></header>
    ${live && html`<${Problem} error=${live.error} />`}
    ${live && live.data === null && !live.error ? html`<p class="soft" aria-busy="true">${t("loading")}</p>` : children}
  </main>`;
}

/** @param {{to: string, query?: Record<string, unknown>, children?: any, class?: string}} props */
export function Link({ to, query, children, ...rest }) {
  return html`<a href=${link(to, query)} ...${rest}>${children}</a>`;
}

/**
 * The pages beside this one; the present one is in sight, however narrow the window.
 * @param {{label: string, of: {to: string, words: string, isHere: boolean, query?: Record<string, unknown>}[], class?: string}} props
 */
export function Tabs({ label, of, class: name = "tabs" }) {
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const here = of.find((one) => one.isHere)?.to;
  useEffect(() => list.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [here]);
  return html`<nav aria-label=${label} class=${name} ref=${list}><ul>${of.map(({ to, words, isHere, query }) => html`<li key=${to}>
    <${Link} to=${to} query=${query} aria-current=${isHere ? "page" : undefined}>${words}<//></li>`)}</ul></nav>`;
}

/** @param {{kind?: string, children?: any}} props kind: good, bad, unsure or nothing */
export function Badge({ kind = "", children }) {
  return html`<span class=${`badge ${kind}`}>${children}</span>`;
}

/** A moment: how long ago, and on hover exactly. @param {{at: string | null | undefined}} props */
export function Moment({ at }) {
  if (!at) return null;
  return html`<time datetime=${at} title=${`${time(at)} · ${at}`}>${since(at)}</time>`;
}

/** @param {any} props label, hint, error (in words, or as the API has it) and a control of its own as children, given its attributes */
export function Field({ label, hint, error, children, ...input }) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const attributes = { id, ...(described && { "aria-describedby": described }), ...(error && { "aria-invalid": "true" }) };
  return html`<div class="field" data-field=${error?.field}>
    <label for=${id}>${label}</label>
    ${typeof children === "function" ? children(attributes) : html`<input ...${attributes} ...${input} />`}
    ${hint && html`<p class="soft" id=${`${id}-hint`}>${hint}</p>`}
    ${error && html`<p class="bad" id=${`${id}-error`}>${error.message ?? error}</p>`}
  </div>`;
}

/** @param {{label: string, value: string, options: [string, string][], onChange: (value: string) => void, hint?: string, error?: string}} props */
export function Choice({ label, value, options, onChange, hint, error }) {
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(/** @type {any} */ attributes) => html`<select ...${attributes} value=${value}
    onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
    ${options.map(([key, words]) => html`<option value=${key} selected=${key === value}>${words}</option>`)}
  </select>`}<//>`;
}

/**
 * A table, and on narrow screens a list of cards; nothing while its rows are not known. Columns are [heading, cell of a
 * row, class].
 * @param {{caption: string, columns: [string, (row: any) => any, string?][], rows?: any[], id?: (row: any) => string, empty?: string}} props
 */
export function Table({ caption, columns, rows, id = (row) => row.id, empty = t("list.empty") }) {
  if (!rows) return null;
  if (rows.length === 0) return html`<p class="soft">${empty}</p>`;
  return html`<div class="scroll"><table>
    <caption class="hidden">${caption}</caption>
    <thead><tr>${columns.map(([heading, , name]) => (heading === "" ? html`<td></td>` : html`<th scope="col" class=${name ?? ""}>${heading}</th>`))}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${id(row)}>
      ${columns.map(([heading, cell, name]) => html`<td class=${name ?? ""} data-label=${heading}><div>${cell(row)}</div></td>`)}
    </tr>`)}</tbody>
  </table></div>`;
}

/** A modal window while `open`. @param {{title: string, open: boolean, onClose: () => void, children?: any}} props */
export function Dialog({ title, open, onClose, children }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const id = useId();
  useEffect(() => {
    if (!open) return element.current?.close();
    element.current?.showModal();
    /** @type {HTMLElement | null | undefined} */ (element.current?.querySelector("input, select, textarea"))?.focus();
  }, [open]);
  return html`<dialog ref=${element} aria-labelledby=${id} onClose=${onClose}>
    <header class="title"><h2 id=${id}>${title}</h2>
      <button type="button" class="plain" onClick=${onClose} aria-label=${t("close")}>✕</button></header>
    ${open && children}
  </dialog>`;
}

/** @param {any} props */
export function Button({ busy, class: name = "", children, ...rest }) {
  return html`<button type="button" class=${name} aria-disabled=${busy ? "true" : undefined} ...${rest}>${children}</button>`;
}

/** A button that begins a deed, which is not there where this console only shows. @param {any} props */
export function Deed(props) {
  return !readOnly && html`<${Button} ...${props} />`;
}

/** What belongs to logging in, which may be done all the same. */
const OF_LOGINS = ["/auth/password", "/auth/forgot", "/auth/reset", "/auth/email/confirm"];

/**
 * A form that does one deed: its fields as children, its problem shown, and the same deed as a line for a terminal.
 * `unable`: after such an error, in words, why it cannot be done any more.
 * @param {{does: () => Promise<any>, done?: (made: any) => void, label: string, danger?: boolean, children?: any,
 *   request?: () => [string, string, unknown?, Record<string, string>?], unable?: (error: any) => string | false}} props
 */
export function Form({ does, done, label, danger = false, children, request, unable }) {
  const deed = useDeed();
  const only = readOnly && request && !OF_LOGINS.includes(request()[1]) ? t("read_only") : unable?.(deed.error);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (only) return;
    const made = await deed.run(does);
    if (made !== undefined) done?.(made);
  };
  return html`<form onSubmit=${submit}>
    ${typeof children === "function" ? children(deed.error) : children}
    <${Problem} error=${deed.error} />
    ${only ? html`<p class="unsure">${only}</p>`
      : html`<div class="deeds"><${Button} type="submit" busy=${deed.busy} class=${danger ? "danger" : "main"}>${label}<//></div>`}
    ${request && html`<details class="curl"><summary>${t("curl")}</summary><code>${curl(...request())}</code></details>`}
  </form>`;
}

/** Names and what they are. @param {{of: [string, any][]}} props */
export function Facts({ of }) {
  return html`<dl class="facts">${of.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false).map(
    ([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`,
  )}</dl>`;
}
