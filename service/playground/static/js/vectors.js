// Vectors: what the server has, what tokens they move, and making new ones.
import { events, get } from "./api.js";
import { html } from "./dom.js";
import { tell } from "./errors.js";
import { LAYERS, layersOf } from "./layers.js";
import { changed, set, state } from "./state.js";
import { shown } from "./whitespace.js";

const FEW = 6; // tokens told of a vector, either way
const UNKNOWN = "unknown"; // in place of an answer that failed
const draft = {
  kind: "text",
  name: "",
  text: "",
  positive: "I feel happy about this, it is\nShe loved the movie because it was",
  negative: "I feel sad about this, it is\nShe hated the movie because it was",
  layers: "",
  progress: "",
};

export async function loadVectors() {
  const found = [];
  let page = { has_more: true, last_id: null };
  while (page.has_more) {
    const after = page.last_id ? `&after=${encodeURIComponent(page.last_id)}` : "";
    page = await get(`v1/vectors?limit=1000${after}`);
    found.push(...page.data);
  }
  set({ vectors: found.filter((vector) => vector.usable) });
}

// What a vector raises and lowers; asked for when it is first shown.
export function Nearest({ name }) {
  if (!(name in state.nearest)) {
    ask(name);
  }
  const answer = state.nearest[name];
  if (answer === UNKNOWN) {
    return html`<p class="quiet">
      Its tokens could not be read. <button class="small" onClick=${() => ask(name)}>Try again</button>
    </p>`;
  }
  return html`<dl class="nearest">
    ${["raised", "lowered"].map(
      (side) => html`<dt>${side === "raised" ? "raises" : "lowers"}</dt>
        <dd>
          ${answer?.[side].map((entry) => html`<span class="token">${shown(entry.token)}</span> `) ?? "…"}
        </dd>`,
    )}
  </dl>`;
}

async function ask(name) {
  set({ nearest: { ...state.nearest, [name]: null } });
  const told = (answer) => set({ nearest: { ...state.nearest, [name]: answer } });
  try {
    told(await get(`v1/vectors/${name}/nearest?k=${FEW}`));
  } catch (error) {
    told(UNKNOWN);
    tell(error);
  }
}

export function MakeVector({ onMade }) {
  const edit = (name) => (event) => {
    draft[name] = event.target.value;
    changed();
  };
  const make = async (event) => {
    event.preventDefault();
    const made = await send();
    if (made) onMade(made);
  };
  return html`<details class="make">
    <summary>Make a vector</summary>
    <form onSubmit=${make}>
      <fieldset class="choice">
        <legend class="hidden">What to make it from</legend>
        ${["text", "contrast"].map(
          (kind) => html`<label>
            <input type="radio" name="kind" value=${kind} checked=${draft.kind === kind} onChange=${edit("kind")} />
            <span>From a ${kind}</span>
          </label>`,
        )}
      </fieldset>
      <label>Name
        <input
          type="text" required pattern="[a-z0-9][a-z0-9._\\-]{0,63}" placeholder="calm"
          title="a-z, 0-9, '.', '_' and '-', at most 64" value=${draft.name} onInput=${edit("name")}
        />
      </label>
      ${draft.kind === "text"
        ? html`<label>Text, whose tokens it points to
            <input type="text" required placeholder=" ocean" value=${draft.text} onInput=${edit("text")} />
          </label>`
        : html`<label>Positive prompts, one a line
              <textarea rows="3" required value=${draft.positive} onInput=${edit("positive")}></textarea>
            </label>
            <label>Negative prompts, one a line
              <textarea rows="3" required value=${draft.negative} onInput=${edit("negative")}></textarea>
            </label>
            <label>Layers, empty for all
              <input
                type="text" inputmode="numeric" ...${LAYERS} placeholder="10, 12-14"
                value=${draft.layers} onInput=${edit("layers")}
              />
            </label>`}
      <div class="buttons">
        <button disabled=${draft.progress !== ""}>${exists(draft.name) ? "Replace it" : "Make it"}</button>
        <span class="quiet" role="status">${draft.progress}</span>
      </div>
    </form>
  </details>`;
}

function exists(name) {
  return state.vectors.some((vector) => vector.name === name);
}

async function send() {
  const body = { name: draft.name, from: source(), replace: exists(draft.name), stream: true };
  draft.progress = "Making it …";
  set({ error: "" });
  try {
    let made = null;
    for await (const event of events("v1/vectors", body)) {
      if (event.object === "vector.progress") draft.progress = `${event.done} of ${event.total} prompts`;
      else made = event;
      changed();
    }
    delete state.nearest[draft.name];
    await loadVectors();
    return made;
  } catch (error) {
    tell(error);
    return null;
  } finally {
    draft.progress = "";
    changed();
  }
}

function source() {
  if (draft.kind === "text") return { text: draft.text };
  const lines = (text) => text.split("\n").filter((line) => line.trim() !== "");
  const sides = { positive: lines(draft.positive), negative: lines(draft.negative) };
  return { contrast: { ...sides, layers: layersOf(draft.layers) } };
}
