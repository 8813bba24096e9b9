// The chosen token: its figures, and its likeliest alternatives before and after control.
import { html } from "./dom.js";
import { add } from "./entries.js";
import { nats, percent } from "./measures.js";
import { branch } from "./run.js";
import { isForeign, state } from "./state.js";
import { alternatives } from "./trace.js";
import { exactShare } from "./tooltip.js";
import { shown, spoken } from "./whitespace.js";

const SHOWN = 12;
const STEERED = {
  true: `A vector steered this text inside the model. “Before” is the model without any control, as
    it reads the same text; KL between the two is not known.`,
  false: `A vector steered this text inside the model. What the model says of it without control has
    not been read.`,
};

// A trace of another model than the server's can be seen, but nothing goes on from it.
export function Distribution({ trace, token, lane, at }) {
  const rows = alternatives(token, trace.texts);
  const likeliest = rows.slice(0, SHOWN);
  if (!likeliest.some((row) => row.id === token.id)) likeliest.push(rows.find((row) => row.id === token.id));
  return html`<section class="card distribution" aria-labelledby="distribution">
    <header>
      <h2 id="distribution">
        Token ${at + 1}: <span class="token">${shown(token.text)}</span>
      </h2>
      <span class="quiet">id ${token.id}</span>
      <button class="small" disabled=${isForeign(trace)} onClick=${() => add("bias", { token_id: token.id, add: 2 })}>Bias</button>
      <button class="small" disabled=${isForeign(trace)} onClick=${() => add("suppress", { token_id: token.id })}>Suppress</button>
    </header>
    <${Figures} token=${token} />
    ${trace.steered && html`<p class="quiet">${STEERED[Boolean(trace.compared)]}</p>`}
    <p class="quiet">
      What the model could have said here. Press a token to take it instead and see where the text
      goes from there.
    </p>
    <table class="bars">
      <thead>
        <tr>
          <th scope="col">token</th>
          <th scope="col"><span class="key before">before</span></th>
          <th scope="col"><span class="key after">after control</span></th>
        </tr>
      </thead>
      <tbody>
        ${likeliest.map(
          (row) => html`<tr key=${row.id} class=${row.id === token.id ? "drawn" : ""}>
            <th scope="row">
              <button
                class="token"
                disabled=${isForeign(trace) || row.id === token.id}
                aria-label=${`Take “${spoken(row.text)}” instead`}
                onClick=${() => branch(lane, at, row.id)}
              >
                ${shown(row.text)}
              </button>
            </th>
            <${Bar} kind="before" share=${row.base} />
            <${Bar} kind="after" share=${row.controlled} />
          </tr>`,
        )}
      </tbody>
    </table>
  </section>`;
}

// A share of null is of a token outside the top_k of its stage: smaller than all that are in it.
// One of undefined is not known.
function Bar({ kind, share }) {
  return html`<td class=${`bar ${kind}`} title=${exactShare(share)}>
    ${Number.isFinite(share) && html`<span class="fill" style=${{ "--share": share }}></span>`}<span class="number">${percent(share)}</span>
  </td>`;
}

function Figures({ token }) {
  const { base, controlled } = token;
  const both = (name, show) => [name, base ? show(base) : "–", show(controlled)];
  const rows = [
    both("probability", ({ logprob }) => percent(Math.exp(logprob))),
    both("rank", ({ rank }) => rank),
    both("surprisal", ({ logprob }) => nats(-logprob)),
    both("entropy", ({ entropy }) => nats(entropy)),
  ];
  return html`<table class="figures">
    <thead>
      <tr><th scope="col"><span class="hidden">measure</span></th>
        <th scope="col">before</th><th scope="col">after</th></tr>
    </thead>
    <tbody>
      ${rows.map(
        ([name, before, after]) =>
          html`<tr><th scope="row">${name}</th><td>${before}</td><td>${after}</td></tr>`,
      )}
      <tr><th scope="row">KL</th><td></td><td>${nats(token.kl)}</td></tr>
    </tbody>
  </table>`;
}
