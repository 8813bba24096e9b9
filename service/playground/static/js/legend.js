// The scale of a colour ramp: what its two ends and its middle stand for.
import { html } from "./dom.js";

export function Legend({ ticks }) {
  return html`<div class="legend">
    <span class="ramp" aria-hidden="true"></span>
    ${ticks.map((tick) => html`<span>${tick}</span>`)}
  </div>`;
}
