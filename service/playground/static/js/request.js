// From what the person has set up to the body of a request.
import { STAGES } from "./trace.js";

const PATHS = { chat: "v1/chat/completions", text: "v1/completions" };

export function pathOf(setup) {
  return PATHS[setup.mode];
}

// Return `logit_control` without rows that are not filled in yet, null if nothing is left.
export function controlOf({ bias, suppress, steer }) {
  const control = {
    bias: bias.filter((entry) => entry.text !== ""),
    suppress: suppress.filter((entry) => entry.text !== ""),
    steer: steer.filter((entry) => entry.vector !== ""),
  };
  const filled = Object.entries(control).filter(([, entries]) => entries.length > 0);
  return filled.length > 0 ? Object.fromEntries(filled) : null;
}

export function bodyOf(model, setup, control) {
  const { mode, prompt, temperature, seed, max_tokens, top_k } = setup;
  const asked = mode === "chat" ? { messages: [{ role: "user", content: prompt }] } : { prompt };
  return {
    model,
    ...asked,
    temperature,
    seed,
    max_tokens,
    ...(control && { logit_control: control }),
    distribution: { top_k, stages: STAGES },
  };
}
