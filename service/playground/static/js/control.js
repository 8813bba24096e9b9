// The control editor: rows of bias, suppression and steering; a change runs the lane again.
import { html } from "./dom.js";
import { controlChanged } from "./run.js";
import { Slider } from "./slider.js";
import { state } from "./state.js";
import { MakeVector, Nearest } from "./vectors.js";

const STEER = {
  logits: { limit: 2, step: 0.05, unit: "standard deviations of logits" },
  residual: { limit: 8, step: 0.25, unit: "times the vector" },
};

export function Control() {
  const { bias, suppress, steer } = state.setup.control;
  return html`<section class="card control" aria-labelledby="control">
    <header><h2 id="control">Control</h2></header>
    <p class="quiet">Raise, lower or forbid texts, or push along a vector. Both texts share a seed.</p>
    ${bias.map((entry, at) => html`<${Bias} key=${`bias${at}`} entry=${entry} at=${at} />`)}
    ${suppress.map((entry, at) => html`<${Suppress} key=${`suppress${at}`} entry=${entry} at=${at} />`)}
    ${steer.map((entry, at) => html`<${Steer} key=${`steer${at}`} entry=${entry} at=${at} />`)}
    <div class="buttons">
      <button onClick=${() => add("bias", { text: "", add: 2 })}>+ Bias</button>
      <button onClick=${() => add("suppress", { text: "" })}>+ Suppress</button>
      <button
        disabled=${state.vectors.length === 0}
        title=${state.vectors.length === 0 ? "Make a vector first" : ""}
        onClick=${() => addSteering(state.vectors[0])}
      >
        + Steer
      </button>
    </div>
    <${MakeVector} onMade=${addSteering} />
  </section>`;
}

function Bias({ entry, at }) {
  return html`<div class="entry">
    <${Head} kind="bias" name="Bias" at=${at}>
      <${Text} entry=${entry} label="Text to bias" />
    <//>
    <${Slider}
      label=${`Bias of “${entry.text}” in nats`}
      value=${entry.add}
      limit=${12}
      step=${0.5}
      unit="nats"
      onInput=${(add) => change(entry, { add })}
    />
  </div>`;
}

function Suppress({ entry, at }) {
  return html`<div class="entry">
    <${Head} kind="suppress" name="Suppress" at=${at}>
      <${Text} entry=${entry} label="Text to suppress" />
    <//>
  </div>`;
}

function Steer({ entry, at }) {
  const vector = state.vectors.find((each) => each.name === entry.vector);
  const place = entry.at ?? "logits";
  return html`<div class="entry">
    <${Head} kind="steer" name="Steer" at=${at}>
      <select
        aria-label="Vector"
        value=${entry.vector}
        onChange=${(event) => replace(at, event.target.value)}
      >
        ${!vector && html`<option value=${entry.vector}>${entry.vector}</option>`}
        ${state.vectors.map((each) => html`<option value=${each.name}>${each.name}</option>`)}
      </select>
      <select
        aria-label="Where it acts"
        value=${place}
        onChange=${(event) => change(entry, { at: event.target.value, strength: 0 })}
      >
        <option value="logits">logits</option>
        <option value="residual" disabled=${vector?.space !== "residual"}>residual stream</option>
      </select>
    <//>
    <${Slider}
      label=${`Strength of ${entry.vector}`}
      value=${entry.strength}
      ...${STEER[place]}
      onInput=${(strength) => change(entry, { strength })}
    />
    <${Nearest} name=${entry.vector} />
  </div>`;
}

function Head({ kind, name, at, children }) {
  return html`<div class="head">
    <span class="kind">${name}</span>
    ${children}
    <button class="small" aria-label=${`Remove ${kind} ${at + 1}`} onClick=${() => remove(kind, at)}>✕</button>
  </div>`;
}

function Text({ entry, label }) {
  return html`<input
    type="text"
    aria-label=${label}
    placeholder="a text, spaces count"
    maxlength="256"
    value=${entry.text}
    onInput=${(event) => change(entry, { text: event.target.value })}
  />`;
}

function add(kind, entry) {
  state.setup.control[kind].push(entry);
  controlChanged();
}

function addSteering({ name, space }) {
  add("steer", { vector: name, strength: 0, at: space === "residual" ? "residual" : "logits" });
}

// Another vector may not act where the one before it did.
function replace(at, name) {
  const { space } = state.vectors.find((each) => each.name === name);
  change(state.setup.control.steer[at], { vector: name, at: space === "residual" ? "residual" : "logits" });
}

function change(entry, fields) {
  Object.assign(entry, fields);
  controlChanged();
}

function remove(kind, at) {
  state.setup.control[kind].splice(at, 1);
  controlChanged();
}
