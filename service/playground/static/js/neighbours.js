// The tokens nearest to the chosen one, where tokens go into the model and where they come out.
import { ApiError, get } from "./api.js";
import { html } from "./dom.js";
import { set, state } from "./state.js";
import { shown } from "./whitespace.js";

const SPACES = { embedding: "Going in (embedding)", unembedding: "Coming out (unembedding)" };

export function Neighbours({ token }) {
  const told = state.neighbours?.id === token.id ? state.neighbours : null;
  return html`<section class="card" aria-labelledby="neighbours">
    <header><h2 id="neighbours">Neighbours</h2></header>
    <p class="quiet">A token is a vector: these lie closest to it, by cosine.</p>
    ${told?.answer
      ? Object.entries(SPACES)
          .filter(([space]) => told.answer[space])
          .map(
            ([space, title]) => html`<h3>${title}</h3>
              <ol class="near">
                ${told.answer[space].map(
                  (entry) => html`<li>
                    <span class="token">${shown(entry.token)}</span>
                    <span class="quiet">${entry.cosine.toFixed(2)}</span>
                  </li>`,
                )}
              </ol>`,
          )
      : html`<button disabled=${told !== null} onClick=${() => find(token)}>
          Find the neighbours of <span class="token">${shown(token.text)}</span>
        </button>`}
  </section>`;
}

async function find({ id }) {
  set({ neighbours: { id } });
  try {
    set({ neighbours: { id, answer: await get(`v1/tokens/nearest?token_id=${id}&k=12`) } });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    set({ neighbours: null, error: error.message });
  }
}
