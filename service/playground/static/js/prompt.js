// The prompt, how to sample, and the button that runs it.
import { html } from "./dom.js";
import { isRunning, run, stop } from "./run.js";
import { setUp, state } from "./state.js";

const EXAMPLES = [
  { mode: "chat", prompt: "Describe the sea in one sentence." },
  { mode: "text", prompt: "The capital of France is" },
  { mode: "chat", prompt: "Tell me a story about a lighthouse." },
];

const NUMBERS = [
  { name: "max_tokens", label: "Most tokens", min: 1, step: 1 }, // its max is the model's
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1 },
  { name: "seed", label: "Seed", min: 0, max: 2 ** 31 - 1, step: 1 },
  { name: "top_k", label: "Alternatives", min: 1, max: 200, step: 1 },
];

export function Prompt() {
  const { setup } = state;
  const submit = (event) => {
    event.preventDefault();
    if (isRunning()) stop();
    else run();
  };
  return html`<form class="card prompt" aria-labelledby="prompt" onSubmit=${submit}>
    <header><h2 id="prompt">Prompt</h2></header>
    <fieldset class="choice">
      <legend class="hidden">How the prompt is used</legend>
      ${[["chat", "Chat"], ["text", "Continue the text"]].map(
        ([mode, label]) => html`<label>
          <input type="radio" name="mode" value=${mode} checked=${setup.mode === mode} onChange=${() => setUp({ mode })} />
          <span>${label}</span>
        </label>`,
      )}
    </fieldset>
    <textarea
      rows="4"
      required
      aria-label="Prompt"
      value=${setup.prompt}
      onInput=${(event) => setUp({ prompt: event.target.value })}
    ></textarea>
    <div class="examples">
      ${EXAMPLES.map(
        (example) => html`<button type="button" class="link" onClick=${() => setUp(example)}>${example.prompt}</button>`,
      )}
    </div>
    <div class="numbers">
      ${NUMBERS.map(
        ({ name, label, max = state.limit - 1, ...range }) => html`<label>${label}
          <input
            type="number"
            required
            max=${max}
            ...${range}
            value=${setup[name]}
            onInput=${({ target }) => target.validity.valid && setUp({ [name]: Number(target.value) })}
            onChange=${({ target }) => target.validity.rangeOverflow && setUp({ [name]: max })}
          />
        </label>`,
      )}
    </div>
    <button class="primary" disabled=${!state.model} aria-keyshortcuts="Control+Enter">
      ${isRunning() ? "Stop" : "Run"} <kbd aria-hidden="true">Ctrl Enter</kbd>
    </button>
  </form>`;
}

// Ctrl+Enter presses the button, wherever the focus is.
export function runByKey(event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  if (!state.model || state.language) return; // nothing to ask yet, or the request is in front
  event.preventDefault();
  const edited = document.activeElement;
  edited?.blur(); // what was typed counts
  edited?.focus({ preventScroll: true });
  document.querySelector("form.prompt").requestSubmit();
}
