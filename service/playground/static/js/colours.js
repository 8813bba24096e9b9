// What the strips are coloured by, and the legend of it.
import { html } from "./dom.js";
import { Legend } from "./legend.js";
import { MEASURES } from "./measures.js";
import { set, state } from "./state.js";

export function Colours() {
  const { explains, unknown, ticks } = MEASURES[state.colour];
  const steered = Object.values(state.lanes).some((trace) => trace?.steered);
  return html`<div class="colours">
    <fieldset class="choice">
      <legend class="hidden">Colour the tokens by</legend>
      ${Object.entries(MEASURES).map(
        ([name, { label }]) => html`<label>
          <input
            type="radio"
            name="colour"
            value=${name}
            checked=${state.colour === name}
            onChange=${() => set({ colour: name })}
          />
          <span>${label}</span>
        </label>`,
      )}
    </fieldset>
    <${Legend} ticks=${ticks} />
    <p class="quiet">${explains} ${steered && unknown}</p>
  </div>`;
}
