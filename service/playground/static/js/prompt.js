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
  { name: "max_tokens", label: "Most tokens", min: 1, max: 4096, step: 1 },
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
  const onKeyDown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
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
      onKeyDown=${onKeyDown}
    ></textarea>
    <div class="examples">
      ${EXAMPLES.map(
        (example) => html`<button type="button" class="link" onClick=${() => setUp(example)}>${example.prompt}</button>`,
      )}
    </div>
    <div class="numbers">
      ${NUMBERS.map(
        ({ name, label, ...range }) => html`<label>${label}
          <input
            type="number"
            required
            ...${range}
            value=${setup[name]}
            onInput=${(event) => event.target.validity.valid && setUp({ [name]: Number(event.target.value) })}
          />
        </label>`,
      )}
    </div>
    <button class="primary" disabled=${!state.model}>${isRunning() ? "Stop" : "Run"}</button>
  </form>`;
}
