// A schedule as it is made or changed.
import { html, useState } from "../../vendor/preact.js";
import { ApiError, ask, path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Choice, Field, Form } from "../../lib/ui.js";
import { t } from "../../lib/words.js";
import { TypeNames } from "../tasks/rooms.js";

const RHYTHMS = ["cron", "every", "at"];
const TEXTS = ["name", "task_type", "title", "user_id", "cron", "timezone"];
const NUMBERS = ["every", "priority", "max_attempts", "timeout"];
const TIMES = ["at", "starts_at", "ends_at"];
const MISSED = ["run_once", "run_all", "skip"];

/** A time as the browser's field has it, in the zone of its user. @param {string | null} at */
function local(at) {
  const moment = new Date(at ?? "");
  return at ? new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 16) : "";
}

/** The fields as they are shown. @param {any} schedule @returns {Record<string, string>} */
function fieldsOf(schedule) {
  const texts = [...TEXTS, ...NUMBERS].map((name) => [name, String(schedule[name] ?? "")]);
  return {
    ...Object.fromEntries([...texts, ...TIMES.map((name) => [name, local(schedule[name])])]),
    payload: JSON.stringify(schedule.payload ?? {}, null, 2), missed: schedule.missed ?? MISSED[0],
  };
}

/** What a field means to the API. @param {string} name @param {string} text */
function valueOf(name, text) {
  if (name === "payload") {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new ApiError(400, "invalid_input", "", [{ field: name, message: String(error) }]);
    }
  }
  if (text === "") return null;
  if (NUMBERS.includes(name)) return Number(text);
  return TIMES.includes(name) ? new Date(text).toISOString() : text;
}

/** @param {{schedule?: any, etag?: string | null, done: (made: any) => void}} props */
export function Edit({ schedule = {}, etag = null, done }) {
  const isNew = schedule.id === undefined;
  const [before] = useState(() => fieldsOf({ priority: 50, max_attempts: 3, task_type: "noop", ...schedule }));
  const [fields, setFields] = useState(before);
  const [rhythm, setRhythm] = useState(RHYTHMS.find((one) => schedule[one]) ?? "cron");
  const { data: types } = useLive("/task-types", { query: { limit: 100 } });
  const target = isNew ? "/schedules" : path`/schedules/${schedule.id}`;
  const method = isNew ? "POST" : "PUT";
  /** @type {Record<string, string>} */
  const headers = etag ? { "If-Match": etag } : {};
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setFields({ ...fields, [name]: event?.target ? event.target.value : event });
  /** What was changed, or of a new one all that is not empty. */
  const body = () => {
    const others = RHYTHMS.filter((one) => one !== rhythm).concat(rhythm === "cron" ? [] : ["timezone"]);
    const named = Object.keys(fields).filter((name) => !others.includes(name) && (isNew ? fields[name] !== "" : fields[name] !== before[name]));
    return Object.fromEntries(named.map((name) => [name, valueOf(name, fields[name])]));
  };
  /** As far as it can be shown. @returns {[string, string, unknown?, Record<string, string>?]} */
  const request = () => {
    try {
      return [method, target, body(), headers];
    } catch {
      return [method, target, {}, headers];
    }
  };
  const field = (/** @type {any} */ error, /** @type {string} */ name, /** @type {any} */ attributes = {}) => html`<${Field} label=${t(name in LABELS ? LABELS[name] : `schedule.${name}`)}
    value=${fields[name]} error=${error?.of?.(name)} onInput=${set(name)} ...${attributes} />`;
  return html`<${Form} label=${t(isNew ? "schedule.make" : "save")} done=${done} does=${async () => ask(target, { method, body: body(), headers })} request=${request}>
    ${(/** @type {any} */ error) => html`
      ${field(error, "name", { required: true, maxlength: 200 })}
      ${field(error, "task_type", { required: true, maxlength: 50, list: "kinds" })}<${TypeNames} id="kinds" types=${types} />
      <${Choice} label=${t("schedule.when")} value=${rhythm} onChange=${setRhythm} options=${RHYTHMS.map((one) => [one, t(`schedule.${one}`)])} />
      ${rhythm === "cron" && html`${field(error, "cron", { required: true, hint: t("schedule.cron.hint") })}${field(error, "timezone", { hint: t("schedule.timezone.hint") })}`}
      ${rhythm === "every" && field(error, "every", { required: true, type: "number", min: 1 })}
      ${rhythm === "at" && field(error, "at", { required: true, type: "datetime-local" })}
      <${Field} label=${t("task.payload")} error=${error?.of?.("payload")}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} class="code" spellcheck=${false} value=${fields.payload} onInput=${set("payload")}></textarea>`}<//>
      <details><summary>${t("schedule.more")}</summary>
        ${field(error, "title", { maxlength: 200 })}${field(error, "user_id")}
        <${Choice} label=${t("schedule.missed")} value=${fields.missed} onChange=${set("missed")} options=${MISSED.map((one) => [one, t(`schedule.missed.${one}`)])} />
        ${rhythm !== "at" && html`${field(error, "starts_at", { type: "datetime-local" })}${field(error, "ends_at", { type: "datetime-local" })}`}
        ${field(error, "priority", { type: "number", min: 0, max: 100, required: true })}
        ${field(error, "max_attempts", { type: "number", min: 1, max: 25, required: true })}
        ${field(error, "timeout", { type: "number", min: 0.1, step: "any" })}
      </details>`}
  <//>`;
}

/** Fields that tasks have too. @type {Record<string, string>} */
const LABELS = { task_type: "task.type", title: "task.title", user_id: "task.owner", priority: "task.priority", max_attempts: "task.attempts" };
