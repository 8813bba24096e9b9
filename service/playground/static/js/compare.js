// What the model says without control, along a text that was steered inside of it.
import { post } from "./api.js";
import { PATHS } from "./request.js";
import { stagesOf } from "./trace.js";

// Fill in the `base` of a trace's tokens: the server reads the whole text as a prompt, over which
// no control runs.
export async function compare(trace, signal) {
  const { model, prompt_ids, request, tokens } = trace;
  const body = {
    model,
    prompt: [...prompt_ids, ...tokens.map((token) => token.id)],
    max_tokens: 1,
    temperature: 0,
    distribution: { top_k: request.body.distribution.top_k, stages: ["base"], prompt: true },
  };
  const answer = await post(PATHS.text, body, signal);
  const stages = stagesOf(answer.choices[0].distribution.prompt, "base");
  const first = prompt_ids.length - 1; // a prompt's rows begin with its second token
  trace.tokens = tokens.map((token, at) => ({ ...token, base: stages[first + at] }));
  trace.compared = true;
}
