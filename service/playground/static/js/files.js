// A trace as a file: saved to share, and loaded again with or without the same server.
import { OWN, PATHS } from "./request.js";
import { stop } from "./run.js";
import { isForeign, set, state } from "./state.js";
import { STAGES, steersResidual } from "./trace.js";

const FORMAT = "sensefield-trace";
const VERSION = 1;

export function save() {
  const lanes = Object.entries(state.lanes).map(([name, trace]) => [name, trace && written(trace)]);
  const traces = Object.values(state.lanes).filter(Boolean);
  const content = {
    format: FORMAT,
    version: VERSION,
    model: traces[0]?.model ?? state.model,
    setup: state.setup,
    lanes: Object.fromEntries(lanes),
    texts: textsOf(traces),
  };
  const url = URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/json" }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: "sensefield-trace.json" });
  link.click();
  URL.revokeObjectURL(url);
}

// Where a branch came from is not part of what is shown, so it is left out.
function written({ control, request, prompt_ids, tokens, finish, compared, branch }) {
  const more = { ...(compared && { compared }), ...(branch && { forced: branch.at }) };
  return { control, request, prompt_ids, tokens, finish, ...more };
}

// The texts of the alternatives, by id: what a page without the server could not know.
function textsOf(traces) {
  const found = {};
  for (const { tokens, texts } of traces) {
    for (const token of tokens) {
      STAGES.forEach((stage) => token[stage]?.ids.forEach((id) => (found[id] = texts[id] ?? "")));
    }
  }
  return found;
}

export async function load(file) {
  try {
    const { model, setup, lanes } = parsed(await file.text());
    stop();
    const lane = lanes.controlled ? "controlled" : "baseline";
    const foreign = state.model && isForeign({ model });
    const told = foreign ? `${file.name} is loaded. It is of ${model}, so it can only be looked at.` : `${file.name} is loaded.`;
    set({ setup, lanes, selected: { lane, at: 0 }, lens: null, neighbours: null, error: "", told });
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof SyntaxError)) throw error;
    set({ error: `${file.name} is no trace that this page can read.` });
  }
}

// Return the content with everything in it checked and nothing else; TypeError if it cannot be.
function parsed(text) {
  const content = JSON.parse(text);
  if (content.format !== FORMAT || content.version !== VERSION) throw new TypeError("not a trace");
  const setup = { ...state.setup, ...content.setup };
  const texts = Object.fromEntries(Object.entries(content.texts).map(([id, each]) => [id, String(each)]));
  const model = String(content.model);
  const lanes = {};
  for (const name of ["baseline", "controlled"]) {
    const saved = content.lanes[name];
    lanes[name] = saved && { model, texts, ...trace(saved) };
  }
  return { model, setup: checkedSetup(setup), lanes };
}

function checkedSetup({ mode, prompt, temperature, seed, max_tokens, top_k, control }) {
  const numbers = { temperature, seed, max_tokens, top_k };
  for (const value of Object.values(numbers)) if (typeof value !== "number") throw new TypeError("no number");
  if (mode !== "chat" && mode !== "text") throw new TypeError("no mode");
  const checked = { bias: [], suppress: [], steer: [], ...checkedControl(control) };
  return { mode, prompt: String(prompt), ...numbers, control: checked };
}

// Return what a text was controlled by; null for one without control.
function checkedControl(control) {
  const kinds = Object.entries(control ?? {}).filter(([kind]) => kind !== "force");
  const checked = ([kind, value]) => [kind, OWN.includes(kind) ? value.map(entry) : other(value)];
  return control && Object.fromEntries(kinds.map(checked));
}

// The page does not know the fields of other kinds, so it takes them as they are.
function other(value) {
  if (Array.isArray(value)) return value.map(other);
  if (value === null || typeof value !== "object") throw new TypeError("no entry");
  return value;
}

function entry({ when, layers, ...fields }) {
  return {
    ...fields,
    ...(when && { when: { from: when.from, until: when.until } }),
    ...(layers && { layers: layers.map(Number) }),
  };
}

// It is shown as code to run, in which paths and names stand as they are.
function checkedRequest({ path, body }) {
  if (!Object.values(PATHS).includes(path)) throw new TypeError("no path");
  for (const name of Object.keys(body)) if (!/^[a-z_]+$/.test(name)) throw new TypeError("no field");
  return { path, body };
}

function trace({ control, request, prompt_ids, tokens, finish, compared, forced }) {
  const steered = steersResidual(checkedControl(control));
  // Without `compared` what a steered text was before control was not read.
  const known = (name) => name !== "base" || !steered || compared === true;
  const read = {
    control: checkedControl(control),
    steered,
    compared: steered && compared === true,
    request: checkedRequest(request),
    prompt_ids: prompt_ids.map(Number),
    finish: finish && String(finish),
    tokens: tokens.map((token) => ({
      id: Number(token.id),
      text: String(token.text),
      kl: steered ? null : number(token.kl),
      ...Object.fromEntries(STAGES.map((name) => [name, known(name) ? stage(token[name]) : null])),
    })),
  };
  return forced === undefined ? read : { ...read, branch: { at: forced, parent: null } };
}

function stage({ logprob, rank, entropy, ids, logprobs }) {
  return {
    logprob: number(logprob),
    rank: Number(rank),
    entropy: Number(entropy),
    ids: ids.map(Number),
    logprobs: logprobs.map(number),
  };
}

// JSON has no infinity: the log-probability of a suppressed token is written as null.
function number(value) {
  return value === null ? -Infinity : Number(value);
}
