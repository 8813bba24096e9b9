// The page's one state, and how a change of it reaches the screen: once per animation frame.

export const state = {
  model: "",
  connection: "Connecting …", // shown in place of the model
  limit: 4096, // tokens of a prompt and its answer together
  texts: [], // of every token, by id
  vectors: [], // as GET /v1/vectors lists them
  kinds: [], // of control beside the page's own, see kinds.js
  nearest: {}, // by vector: what GET …/nearest told

  setup: {
    mode: "chat", // or "text": the prompt is continued as it stands
    prompt: "Describe the sea in one sentence.",
    temperature: 0,
    seed: 1,
    max_tokens: 48,
    top_k: 20,
    control: { bias: [{ text: " ocean", add: 4 }], suppress: [], steer: [] },
  },

  lanes: { baseline: null, controlled: null }, // traces, see trace.js
  selected: { lane: "controlled", at: 0 },
  colour: "kl",
  lensColour: "came", // whose probability colours a cell of the lens: "came" or "top"
  lens: null, // { trace, count, answer }, without an answer while it is read
  neighbours: null, // { id, answer } of a token, without an answer while it is read

  key: sessionStorage.getItem("sensefield-key") ?? "",
  theme: localStorage.getItem("sensefield-theme") ?? "auto",
  language: null, // in which the request is shown, if it is
  copied: "", // what came of copying it
  error: "",
  asksKey: false, // the error would not be there with another key
  told: "", // what just happened, for the status line and screen readers
};

let draw = () => {};
let waiting = false;

export function drawWith(callback) {
  draw = callback;
}

// Ask for the page to be drawn in the next frame, however many changes come before it.
export function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

export function set(fields) {
  Object.assign(state, fields);
  changed();
}

export function setUp(fields) {
  Object.assign(state.setup, fields);
  changed();
}

// Say whether a trace is of another model than the server's, whose token ids mean other texts.
export function isForeign(trace) {
  return trace.model !== state.model;
}
