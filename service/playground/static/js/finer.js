// The finer points of an entry, folded away behind a line that tells them.
import { html } from "./dom.js";
import { change, within } from "./entries.js";
import { Field } from "./field.js";
import { LAYERS, layersOf, textOf } from "./layers.js";
import { state } from "./state.js";
import { shown } from "./whitespace.js";

export function Finer({ entry, vector }) {
  const residual = entry.at === "residual";
  return html`<${Window} entry=${entry} told=${told(entry)}>
    ${residual &&
    html`<label class="wide">Layers
      <${Field}
        type="text"
        ...${LAYERS}
        placeholder=${textOf(vector?.layers)}
        value=${textOf(entry.layers)}
        onFinish=${(typed) => change(entry, { layers: layersOf(typed) ?? undefined })}
      />
    </label>`}
    ${"text" in entry &&
    html`<label class="check wide">
      <input
        type="checkbox"
        checked=${entry.ignore_case ?? false}
        onChange=${(event) => change(entry, { ignore_case: event.target.checked || undefined })}
      />
      Ignore case
    </label>`}
  <//>`;
}

// Where an entry applies.
export function Window({ entry, told = whereOf(entry), children }) {
  return html`<details class="finer">
    <summary>${told}</summary>
    <div class="fields">
      <${Position} entry=${entry} end="from" label="From position" empty=${entry.at === "residual" ? "prompt" : "0"} />
      <${Position} entry=${entry} end="until" label="Until before" empty="the end" />
      ${children}
    </div>
  </details>`;
}

// Positions count generated tokens from 0; a residual stream's may reach back into the prompt.
function Position({ entry, end, label, empty }) {
  return html`<label title="Of generated tokens, counted from 0">${label}
    <${Field}
      type="number"
      step="1"
      min=${entry.at === "residual" ? null : 0}
      placeholder=${empty}
      value=${entry.when?.[end] ?? ""}
      onFinish=${(typed) => within(entry, end, typed === "" ? null : Number(typed))}
    />
  </label>`;
}

function told(entry) {
  const parts = [whereOf(entry)];
  if (entry.layers) parts.push(`layers ${textOf(entry.layers)}`);
  if (entry.ignore_case) parts.push("in any case");
  const text = state.texts[entry.token_id];
  return html`${text !== undefined && html`<span class="token">${shown(text)}</span> `}${parts.join(", ")}`;
}

function whereOf({ when, at }) {
  const everywhere = at === "residual" ? "prompt and answer" : "every token";
  if (!when) return everywhere;
  const { from, until } = when;
  const start = from === null ? "the prompt" : `position ${from}`;
  return until === null ? `from ${start} on` : `from ${start} until before ${until}`;
}
