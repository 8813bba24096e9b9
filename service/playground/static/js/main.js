// The page: what is where, and the loop that draws it.
import { Colours } from "./colours.js";
import { connect } from "./connect.js";
import { Control } from "./control.js";
import { Distribution } from "./bars.js";
import { Dialog } from "./dialog.js";
import { html, render } from "./dom.js";
import { applyTheme, Header } from "./header.js";
import { Lens } from "./lens.js";
import { Neighbours } from "./neighbours.js";
import { Problem } from "./problem.js";
import { Prompt, runByKey } from "./prompt.js";
import { isRunning } from "./run.js";
import { Scrubber } from "./scrubber.js";
import { chosen, selection } from "./selection.js";
import { drawWith, isForeign, set, state } from "./state.js";
import { Strip } from "./strip.js";
import { divergence } from "./trace.js";

function Page() {
  return html`<${Header} />
    <main>
      <div class="side">
        <${Prompt} />
        <${Control} />
      </div>
      <div class="results" data-colour=${state.colour}>
        <${Problem} />
        <${Texts} />
        <${Chosen} />
      </div>
    </main>
    ${state.language && html`<${Dialog} language=${state.language} />`}`;
}

function Texts() {
  const { baseline, controlled } = state.lanes;
  const parts = divergence(baseline, controlled);
  const both = controlled || isRunning("controlled");
  return html`<section class="card texts" aria-labelledby="texts">
    <header>
      <h2 id="texts">Tokens</h2>
      <p class="quiet" role="status">${state.told}</p>
    </header>
    <${Colours} />
    ${baseline || isRunning()
      ? html`<div class=${both ? "lanes two" : "lanes"}>
          <${Strip} lane="baseline" parts=${parts} />
          ${both && html`<${Strip} lane="controlled" parts=${parts} />`}
        </div>`
      : html`<div class="empty">
          <p>
            Press <b>Run</b>: the prompt is answered twice, without control and with it, and every
            token shows how the model came to it.
          </p>
        </div>`}
    <p class="quiet">
      Click a token, or walk along them with ← and →; ↑ and ↓ go to the other text. A bar marks the
      first token where the two texts part.
    </p>
  </section>`;
}

function Chosen() {
  const { lane, at } = selection();
  const trace = state.lanes[lane];
  const token = chosen();
  return html`<${Scrubber} lane=${lane} tokens=${trace?.tokens ?? []} at=${at} theme=${state.theme} />
    ${token &&
    html`<div class="pair">
        <${Distribution} trace=${trace} token=${token} lane=${lane} at=${at} />
        ${!isForeign(trace) && html`<${Neighbours} token=${token} />`}
      </div>
      ${!isForeign(trace) && html`<${Lens} lane=${lane} trace=${trace} at=${at} />`}`}`;
}

applyTheme(state.theme);
drawWith(() => render(html`<${Page} />`, document.getElementById("page")));
document.addEventListener("keydown", runByKey);
set({});
connect();
