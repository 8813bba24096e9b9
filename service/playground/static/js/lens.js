// The lens: what each layer would already say at each token of the answer.
import { post } from "./api.js";
import { html } from "./dom.js";
import { tell } from "./errors.js";
import { Legend } from "./legend.js";
import { choose } from "./selection.js";
import { set, state } from "./state.js";
import { exactShare } from "./tooltip.js";
import { shown } from "./whitespace.js";

const COLOURS = { came: "the token that came", top: "the token in the cell" };
const MOST_TOKENS = 96; // a wider map is no longer read, and layers × tokens are limited

export function Lens({ lane, trace, at }) {
  const { lens } = state;
  const fresh = lens?.trace === trace && lens.count === trace.tokens.length;
  return html`<section class="card lens" aria-labelledby="lens">
    <header>
      <h2 id="lens">Lens</h2>
      ${!(fresh && lens.answer) &&
      html`<button disabled=${fresh} onClick=${() => read(trace)}>
        ${fresh ? "Reading …" : "Read every layer"}
      </button>`}
    </header>
    <p class="quiet">
      Each row is a layer, the last one on top; each cell has the token that the model would say if it
      stopped there, bold where that is the token that came. Colour: the probability that this layer
      gives ${COLOURS[state.lensColour]}.
      ${trace.tokens.length > MOST_TOKENS && `It shows the first ${MOST_TOKENS} tokens.`}
    </p>
    ${fresh &&
    lens.answer &&
    html`<${Choice} />
      <${Legend} ticks=${["0 %", "50 %", "100 %"]} />
      <${Map} lane=${lane} answer=${lens.answer} at=${at} />`}
  </section>`;
}

function Choice() {
  return html`<fieldset class="choice">
    <legend class="hidden">Colour the cells by the probability of</legend>
    ${Object.entries(COLOURS).map(
      ([name, label]) => html`<label>
        <input
          type="radio"
          name="lens-colour"
          checked=${state.lensColour === name}
          onChange=${() => set({ lensColour: name })}
        />
        <span>${label}</span>
      </label>`,
    )}
  </fieldset>`;
}

async function read(trace) {
  const asked = { trace, count: trace.tokens.length };
  set({ lens: asked });
  const ids = trace.tokens.slice(0, MOST_TOKENS).map((token) => token.id);
  const first = trace.prompt_ids.length - 1;
  const positions = ids.map((_, at) => first + at);
  const body = { model: state.model, positions, k: 1, ...readingOf(trace, ids) };
  try {
    set({ lens: { ...asked, answer: await post("v1/lens", body) } });
  } catch (error) {
    set({ lens: null });
    tell(error);
  }
}

// Of control only what steers the residual stream shows in it. The answer is then not read as
// part of a longer prompt but said again, as windows count from its first token.
function readingOf({ prompt_ids, control }, ids) {
  const steer = (control?.steer ?? []).filter((entry) => entry.at === "residual");
  if (steer.length === 0) return { prompt: [...prompt_ids, ...ids] };
  return { prompt: prompt_ids, max_tokens: ids.length, logit_control: { steer, force: { token_ids: ids } } };
}

function Map({ lane, answer, at }) {
  const { layers, top, next, entropy, kl, tokens, positions } = answer;
  const said = positions.map((place) => tokens[place + 1]);
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Layers by tokens">
    <table class="map">
      <thead>
        <tr>
          <th scope="col">came</th>
          ${said.map(
            (text, column) => html`<th scope="col" class=${column === at ? "chosen" : ""}>
              <button class="token" title=${text} onClick=${() => choose(lane, column)}>${shown(text)}</button>
            </th>`,
          )}
        </tr>
        <tr>
          <th scope="row" title="from this layer on the token that came is the likeliest">
            settles at layer
          </th>
          ${said.map(
            (_, column) => html`<td class=${`settles ${column === at ? "chosen" : ""}`}>
              ${settles(next.ranks, layers, column) ?? "–"}
            </td>`,
          )}
        </tr>
      </thead>
      <tbody>
        ${layers
          .map((layer, row) => ({ layer, row }))
          .reverse()
          .map(
            ({ layer, row }) => html`<tr key=${layer}>
              <th scope="row">${layer}</th>
              ${said.map(
                (_, column) =>
                  html`<${Cell}
                    text=${top.tokens[row][column][0]}
                    share=${Math.exp(top.logprobs[row][column][0])}
                    answer=${Math.exp(next.logprobs[row][column])}
                    rank=${next.ranks[row][column]}
                    entropy=${entropy[row][column]}
                    kl=${kl[row][column]}
                    chosen=${column === at}
                  />`,
              )}
            </tr>`,
          )}
      </tbody>
    </table>
  </div>`;
}

function Cell({ text, share, answer, rank, entropy, kl, chosen }) {
  const exact = [
    `${JSON.stringify(text)} has ${exactShare(share)}`,
    `the token that came has ${exactShare(answer)}, rank ${rank}`,
    `entropy ${entropy.toFixed(4)} nats`,
    `KL of the last layer from this one ${kl.toFixed(4)} nats`,
  ];
  return html`<td
    class=${[rank === 1 && "first", chosen && "chosen"].filter(Boolean).join(" ")}
    title=${exact.join("\n")}
    style=${{ "--share": { came: answer, top: share }[state.lensColour].toFixed(3) }}
  >
    ${shown(text)}
  </td>`;
}

// Return the layer from which on the answer is the likeliest token, null if it never is.
export function settles(ranks, layers, column) {
  let found = null;
  for (let row = layers.length - 1; row >= 0 && ranks[row][column] === 1; row -= 1) found = layers[row];
  return found;
}
