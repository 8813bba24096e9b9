// A slider around zero, with its value in figures.
import { html } from "./dom.js";

export function Slider({ label, value, limit, step, unit, onInput }) {
  const shownValue = `${value > 0 ? "+" : ""}${value}`;
  return html`<label class="slider">
    <span class="hidden">${label}</span>
    <input
      type="range"
      min=${-limit}
      max=${limit}
      step=${step}
      value=${value}
      aria-valuetext=${`${shownValue} ${unit}`}
      onInput=${(event) => onInput(Number(event.target.value))}
    />
    <output>${shownValue}</output>
  </label>`;
}
