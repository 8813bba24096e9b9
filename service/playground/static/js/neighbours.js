// The tokens nearest to the chosen one, where tokens go into the model and where they come out.
import { get } from "./api.js";
import { html } from "./dom.js";
import { tell } from "./errors.js";
import { set, state } from "./state.js";
import { shown } from "./whitespace.js";

const SPACES = { embedding: "Going in", unembedding: "Coming out" };
const SHOWN = 18;

export function Neighbours({ token }) {
  const told = state.neighbours?.id === token.id ? state.neighbours : null;
  return html`<section class="card neighbours" aria-labelledby="neighbours">
    <header><h2 id="neighbours">Neighbours</h2></header>
    <p class="quiet">
      A token is a vector: these lie closest to it, by cosine, where tokens go into the model
      (embedding) and where they come out (unembedding).
    </p>
    ${told?.answer
      ? html`<${Near} answer=${told.answer} />`
      : html`<button disabled=${told !== null} onClick=${() => find(token)}>
          Find the neighbours of <span class="token">${shown(token.text)}</span>
        </button>`}
  </section>`;
}

// Many models use one matrix at both ends: then there is one list.
function Near({ answer }) {
  const found = Object.entries(SPACES).filter(([space]) => answer[space]);
  const ids = found.map(([space]) => answer[space].map((entry) => entry.token_id).join());
  const tied = found.length > 1 && ids[0] === ids[1];
  const lists = tied ? [["embedding", "Going in and coming out"]] : found;
  return html`<div class="lists">
    ${lists.map(
      ([space, title]) => html`<section>
        <h3>${title}</h3>
        <ol class="near">
          ${answer[space].map(
            (entry) => html`<li title=${`token ${entry.token_id}, cosine ${entry.cosine.toFixed(4)}`}>
              <span class="token">${shown(entry.token)}</span>
              <span class="quiet">${entry.cosine.toFixed(2)}</span>
            </li>`,
          )}
        </ol>
      </section>`,
    )}
  </div>`;
}

async function find({ id }) {
  set({ neighbours: { id } });
  try {
    set({ neighbours: { id, answer: await get(`v1/tokens/nearest?token_id=${id}&k=${SHOWN}`) } });
  } catch (error) {
    set({ neighbours: null });
    tell(error);
  }
}
