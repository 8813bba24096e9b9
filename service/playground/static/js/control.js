// The control editor: rows of bias, suppression, steering and other kinds; a change runs the lane again.
import { html } from "./dom.js";
import { add, addSteering, change, matchBy, steerAlong } from "./entries.js";
import { Finer } from "./finer.js";
import { AddOthers, Others } from "./forms.js";
import { Head } from "./head.js";
import { Slider } from "./slider.js";
import { state } from "./state.js";
import { MakeVector, Nearest } from "./vectors.js";

// Where the slider ends, and the most that the server takes.
const BIAS = { high: 12, most: 100, step: 0.5, unit: "nats" };
const STEER = {
  logits: { high: 2, most: 1000, step: 0.05, unit: "standard deviations of logits" },
  residual: { high: 8, most: 10_000, step: 0.25, unit: "times the vector" },
};

export function Control() {
  const { bias, suppress, steer } = state.setup.control;
  return html`<section class="card control" aria-labelledby="control">
    <header><h2 id="control">Control</h2></header>
    <p class="quiet">Raise, lower or forbid texts, or push along a vector. Both texts share a seed.</p>
    ${bias.map((entry, at) => html`<${Bias} key=${`bias${at}`} entry=${entry} at=${at} />`)}
    ${suppress.map((entry, at) => html`<${Suppress} key=${`suppress${at}`} entry=${entry} at=${at} />`)}
    ${steer.map((entry, at) => html`<${Steer} key=${`steer${at}`} entry=${entry} at=${at} />`)}
    <${Others} />
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
      <${AddOthers} />
    </div>
    <${MakeVector} onMade=${addSteering} />
  </section>`;
}

function Bias({ entry, at }) {
  return html`<div class="entry">
    <${Head} kind="bias" name="Bias" at=${at}><${Match} entry=${entry} kind="bias" /><//>
    <${Slider}
      label=${`Bias of ${named(entry)} in nats`}
      value=${entry.add}
      ...${BIAS}
      onInput=${(nats) => change(entry, { add: nats })}
    />
    <${Finer} entry=${entry} />
  </div>`;
}

function Suppress({ entry, at }) {
  return html`<div class="entry">
    <${Head} kind="suppress" name="Suppress" at=${at}><${Match} entry=${entry} kind="suppress" /><//>
    <${Finer} entry=${entry} />
  </div>`;
}

function Steer({ entry, at }) {
  const vector = state.vectors.find((each) => each.name === entry.vector);
  const place = entry.at ?? "logits";
  const along = ({ target }) => steerAlong(entry, state.vectors.find((each) => each.name === target.value));
  const actAt = ({ target }) =>
    change(entry, { at: target.value, strength: 0, layers: undefined, when: undefined });
  return html`<div class="entry">
    <${Head} kind="steer" name="Steer" at=${at}>
      <select aria-label="Vector" value=${entry.vector} onChange=${along}>
        ${!vector && html`<option value=${entry.vector}>${entry.vector}</option>`}
        ${state.vectors.map((each) => html`<option value=${each.name}>${each.name}</option>`)}
      </select>
      <select aria-label="Where it acts" value=${place} onChange=${actAt}>
        <option value="logits">logits</option>
        <option value="residual" disabled=${vector?.space !== "residual"}>residual</option>
      </select>
    <//>
    <${Slider}
      label=${`Strength of ${entry.vector}`}
      value=${entry.strength}
      ...${STEER[place]}
      onInput=${(strength) => change(entry, { strength })}
    />
    <${Finer} entry=${entry} vector=${vector} />
    <${Nearest} name=${entry.vector} />
  </div>`;
}

// What an entry is about: a text, matched whatever its tokens, or one token.
function Match({ entry, kind }) {
  const by = "text" in entry ? "text" : "token_id";
  return html`<select
      class="by"
      aria-label="What to match"
      value=${by}
      onChange=${(event) => matchBy(event.target.value, entry)}
    >
      <option value="text">text</option>
      <option value="token_id">id</option>
    </select>
    ${by === "text"
      ? html`<input
          type="text"
          aria-label=${`Text to ${kind}`}
          placeholder="spaces count"
          maxlength="256"
          value=${entry.text}
          onInput=${(event) => change(entry, { text: event.target.value })}
        />`
      : html`<input
          type="number"
          aria-label=${`Token to ${kind}`}
          min="0"
          max=${state.texts.length - 1}
          step="1"
          value=${entry.token_id ?? ""}
          onInput=${({ target: { value, validity } }) =>
            validity.valid && change(entry, { token_id: value === "" ? null : Number(value) })}
        />`}`;
}

function named({ text, token_id }) {
  return text === undefined ? `token ${token_id ?? ""}` : `“${text}”`;
}
