// A trace: the tokens of one answer, each with its distribution before and after control.
//
// A token: { id, text, kl, base: stage, controlled: stage }, where a stage is what the model
// said there: { logprob, rank, entropy, ids, logprobs }, the last two of the likeliest tokens.
//
// Steering of the residual stream acts inside the model, so both of the server's stages have it
// in them. Of a text that was steered so, `base` is null until the model without control has read
// it (compare.js), and `kl`, which the server measures between its stages, stays null: not known.
import { matrix, vector } from "./tensors.js";

export const STAGES = ["base", "controlled"];

// `control` is what a person set up, `request` what was sent: it may also force tokens. `texts`
// are those of the model's tokens by id, of all of them or of those that stand in the trace.
export function newTrace({ model, texts }, control, request) {
  // prompt_ids come with the first event, finish with the last one.
  const steered = steersResidual(control);
  return { model, texts, control, steered, request, prompt_ids: [], tokens: [], finish: null };
}

export function steersResidual(control) {
  return (control?.steer ?? []).some((entry) => entry.at === "residual" && entry.strength !== 0);
}

// Return the tokens of one `distribution` object; both stages must be in it.
export function tokensOf(distribution, { texts, steered }) {
  const { sampled, kl } = distribution;
  const ids = vector(sampled.token_id);
  const divergences = vector(kl);
  const stages = STAGES.map((name) => stagesOf(distribution, name));
  return ids.map((id, at) => ({
    id,
    text: texts[id] ?? "",
    kl: steered ? null : Math.max(0, divergences[at]),
    base: steered ? null : stages[0][at],
    controlled: stages[1][at],
  }));
}

export function stagesOf(distribution, name) {
  const logprob = vector(distribution.sampled[`${name}_logprob`]);
  const rank = vector(distribution.sampled[`${name}_rank`]);
  const entropy = vector(distribution[name].entropy);
  const ids = matrix(distribution[name].token_ids);
  const logprobs = matrix(distribution[name].logprobs);
  return ids.map((row, at) => ({
    logprob: logprob[at],
    rank: rank[at],
    entropy: entropy[at],
    ids: row,
    logprobs: logprobs[at],
  }));
}

// Return the first place where two traces differ, null while they agree as far as both go.
export function divergence(one, other) {
  if (!one || !other) return null;
  const shared = Math.min(one.tokens.length, other.tokens.length);
  for (let at = 0; at < shared; at += 1) {
    if (one.tokens[at].id !== other.tokens[at].id) return at;
  }
  return null;
}

// Return [{ id, text, base, controlled }] of a token's likeliest alternatives: probabilities,
// null where the token is not among the top_k of that stage, undefined where it is not known.
export function alternatives(token, texts) {
  const found = new Map();
  const known = STAGES.filter((stage) => token[stage]);
  const nothing = Object.fromEntries(known.map((stage) => [stage, null]));
  for (const stage of known) {
    token[stage].ids.forEach((id, at) => {
      const entry = found.get(id) ?? { id, text: texts[id] ?? "", ...nothing };
      entry[stage] = Math.exp(token[stage].logprobs[at]);
      found.set(id, entry);
    });
  }
  if (!found.has(token.id)) found.set(token.id, { id: token.id, text: token.text });
  const drawn = found.get(token.id);
  for (const stage of known) drawn[stage] = Math.exp(token[stage].logprob);
  const height = (entry) => Math.max(entry.base ?? 0, entry.controlled ?? 0);
  return [...found.values()].sort((a, b) => height(b) - height(a));
}
