// A slider around zero, filled from there, and a field for the exact figure, also beyond its ends.
import { html } from "./dom.js";
import { Field } from "./field.js";

export function Slider({ label, value, limit, most, step, unit, onInput }) {
  const place = (Math.min(limit, Math.max(-limit, value)) + limit) / (2 * limit);
  return html`<div class="slider">
    <input
      type="range"
      aria-label=${label}
      aria-valuetext=${`${value > 0 ? "+" : ""}${value} ${unit}`}
      title=${unit}
      min=${-limit}
      max=${limit}
      step=${step}
      value=${value}
      style=${{ "--place": place }}
      onInput=${({ target }) => onInput(Number(target.value))}
    />
    <${Field}
      type="number"
      aria-label=${`${label}, exactly`}
      title=${unit}
      min=${-most}
      max=${most}
      step="any"
      required
      value=${value}
      onFinish=${(typed) => onInput(Number(typed))}
    />
  </div>`;
}
