// From what the person has set up to a request: its path and its body.
import { STAGES } from "./trace.js";

export const PATHS = { chat: "v1/chat/completions", text: "v1/completions" };

// The fields of `logit_control` that the page knows by itself; forms.js draws others.
export const OWN = ["bias", "suppress", "steer", "force"];

// Return `logit_control` without rows that are not filled in yet, null if nothing is left.
export function controlOf(control) {
  const filled = (entry) => entry.token_id !== null && !Object.values(entry).includes("");
  const rows = (value) => (Array.isArray(value) ? value.filter(filled) : value);
  const kinds = Object.entries(control)
    .map(([kind, value]) => [kind, rows(value)])
    .filter(([, value]) => (Array.isArray(value) ? value.length > 0 : filled(value)));
  // A copy, as the entries may be edited while the request is on its way.
  return kinds.length > 0 ? structuredClone(Object.fromEntries(kinds)) : null;
}

export function requestOf(model, setup, control) {
  const { mode, prompt, temperature, seed, max_tokens, top_k } = setup;
  const asked = mode === "chat" ? { messages: [{ role: "user", content: prompt }] } : { prompt };
  const body = {
    model,
    ...asked,
    temperature,
    seed,
    max_tokens,
    stream: true,
    return_token_ids: true,
    ...(control && { logit_control: control }),
    distribution: { top_k, stages: STAGES },
  };
  return { path: PATHS[mode], body };
}

// Say whether two requests ask for the same text, whatever controls it and is told of it.
export function asksTheSame(one, other) {
  const asked = ({ path, body }) => {
    const { model, messages, prompt, temperature, seed } = body;
    return JSON.stringify([path, model, messages, prompt, temperature, seed]);
  };
  return asked(one) === asked(other);
}
