// A slider that is filled from zero, and a field for the exact figure, also beyond its ends.
import { html } from "./dom.js";
import { Field } from "./field.js";

// The slider goes from `low` to `high`, the field takes `least` to `most`; both lie around zero by
// default. `hint` is the id of a description.
export function Slider({
  label, value, high, low = -high, most, least = -most, step, exact = "any", unit, hint, onInput,
}) {
  const share = (figure) => (Math.min(high, Math.max(low, figure)) - low) / (high - low);
  const figure = `${low < 0 && value > 0 ? "+" : ""}${value}`;
  return html`<div class="slider">
    <input
      type="range"
      aria-label=${label}
      aria-describedby=${hint}
      aria-valuetext=${unit ? `${figure} ${unit}` : figure}
      title=${unit}
      min=${low}
      max=${high}
      step=${step}
      value=${value}
      style=${{ "--zero": share(0), "--place": share(value) }}
      onInput=${({ target }) => onInput(Number(target.value))}
    />
    <${Field}
      type="number"
      aria-label=${`${label}, exactly`}
      aria-describedby=${hint}
      title=${unit}
      min=${least}
      max=${most}
      step=${exact}
      required
      value=${value}
      onFinish=${(typed) => onInput(Number(typed))}
    />
  </div>`;
}
