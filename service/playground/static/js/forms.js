// The forms of other kinds of control, drawn from their schemas.
import { html } from "./dom.js";
import { add, change, put } from "./entries.js";
import { Field } from "./field.js";
import { Window } from "./finer.js";
import { Head } from "./head.js";
import { OWN } from "./request.js";
import { Slider } from "./slider.js";
import { state } from "./state.js";

export function AddOthers() {
  return state.kinds.map((kind) => {
    const full = kind.single && kind.name in state.setup.control;
    return html`<button
      disabled=${full}
      title=${full ? "A request takes one" : (kind.hint ?? "")}
      onClick=${() => (kind.single ? put : add)(kind.name, entryOf(kind))}
    >
      + ${titled(kind.name)}
    </button>`;
  });
}

// A new entry has the fields that it cannot do without.
function entryOf({ fields }) {
  return Object.fromEntries(fields.filter(({ required }) => required).map(({ name, start }) => [name, start]));
}

// A loaded trace may have kinds that this server does not describe: they can be removed.
export function Others() {
  const { control } = state.setup;
  const names = Object.keys(control).filter((name) => !OWN.includes(name));
  return names.flatMap((name) => {
    const missing = { name, hint: "This server describes no form for it.", fields: [] };
    const kind = state.kinds.find((each) => each.name === name) ?? missing;
    const listed = Array.isArray(control[name]);
    return [control[name]].flat().map(
      (entry, at) => html`<${Form} key=${`${name}${at}`} kind=${kind} entry=${entry} at=${listed ? at : undefined} />`,
    );
  });
}

function Form({ kind: { name, hint, fields }, entry, at }) {
  const owner = at === undefined ? worded(name) : `${worded(name)} ${at + 1}`;
  const values = fields.filter(({ drawn }) => drawn !== "window");
  return html`<div class="entry other" role="group" aria-label=${titled(owner)}>
    <${Head} kind=${name} name=${titled(name)} at=${at} />
    ${hint && html`<p class="quiet">${hint}</p>`}
    ${values.map((field) => html`<${Value} field=${field} entry=${entry} owner=${owner} />`)}
    ${values.length < fields.length && html`<${Window} entry=${entry} />`}
  </div>`;
}

function Value({ field, entry, owner }) {
  const { name, hint, start, drawn } = field;
  const id = hint && `${owner} ${name} hint`.replaceAll(" ", "-");
  const label = `${titled(name)} of ${owner}`;
  const onValue = (value) => change(entry, { [name]: value });
  const input = html`<${INPUTS[drawn]} ...${{ field, label, hint: id, value: name in entry ? entry[name] : start, onValue }} />`;
  return html`<div class="value">
    ${drawn === "check" ? html`<label class="check">${input} ${titled(name)}</label>` : html`<span>${titled(name)}</span>${input}`}
    ${hint && html`<p class="quiet" id=${id}>${hint}</p>`}
  </div>`;
}

const INPUTS = {
  slider: ({ field: { low, high, least, most, step, exact }, onValue, ...rest }) =>
    html`<${Slider} ...${{ low, high, least, most, step, exact, ...rest }} onInput=${onValue} />`,

  number: ({ field, label, hint, value, onValue }) => html`<${Field}
    type="number" aria-label=${label} aria-describedby=${hint}
    min=${field.least} max=${field.most} step=${field.exact}
    required=${field.required && !field.nullable}
    value=${value ?? ""}
    onFinish=${(typed) => onValue(typed === "" ? emptied(field) : Number(typed))}
  />`,

  check: ({ label, hint, value, onValue }) => html`<input
    type="checkbox" aria-label=${label} aria-describedby=${hint}
    checked=${value}
    onChange=${({ target }) => onValue(target.checked)}
  />`,

  text: ({ field, label, hint, value, onValue }) => html`<input
    type="text" aria-label=${label} aria-describedby=${hint}
    maxlength=${field.maxLength}
    value=${value ?? ""}
    onInput=${({ target }) => onValue(target.value === "" && !field.required ? undefined : target.value)}
  />`,

  select: ({ field: { options, nullable }, label, hint, value, onValue }) => {
    const offered = nullable ? [null, ...options] : options;
    const choose = ({ target }) => onValue(offered[target.value]);
    return html`<select aria-label=${label} aria-describedby=${hint} value=${offered.indexOf(value)} onChange=${choose}>
      ${offered.map((each, at) => html`<option value=${at}>${each === null ? "–" : String(each)}</option>`)}
    </select>`;
  },

  // The server checks what the page cannot: text that is no JSON goes as text.
  json: ({ field, label, hint, value, onValue }) => html`<${Field}
    type="text" aria-label=${label} aria-describedby=${hint}
    placeholder="JSON"
    value=${value === null ? "" : JSON.stringify(value)}
    onFinish=${(typed) => onValue(typed === "" ? emptied(field) : parsed(typed))}
  />`,
};

// A field that is left empty is taken out, or null where the schema asks for it.
function emptied({ required }) {
  return required ? null : undefined;
}

function parsed(typed) {
  try {
    return JSON.parse(typed);
  } catch {
    return typed;
  }
}

function worded(name) {
  return name.replaceAll("_", " ");
}

function titled(name) {
  const words = worded(name);
  return words.charAt(0).toUpperCase() + words.slice(1);
}
