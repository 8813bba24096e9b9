// Running the prompt: a lane without control, a lane with it, the same seed in both.
import { events } from "./api.js";
import { compare } from "./compare.js";
import { tell } from "./errors.js";
import { asksTheSame, controlOf, requestOf } from "./request.js";
import { changed, isForeign, set, state } from "./state.js";
import { divergence, newTrace, tokensOf } from "./trace.js";

const SETTLE_MS = 200; // a slider that is dragged asks once it rests so long
let settling = 0; // the timer of a control that was changed
const running = { baseline: null, controlled: null };

export function isRunning(lane) {
  return lane ? running[lane] !== null : running.baseline !== null || running.controlled !== null;
}

export function stop() {
  clearTimeout(settling);
  Object.values(running).forEach((abort) => abort?.abort());
}

// Run the prompt from its beginning, in both lanes if there is control.
export async function run() {
  stop();
  const control = controlOf(state.setup.control);
  const lane = control ? "controlled" : "baseline";
  set({ lanes: { baseline: null, controlled: null }, selected: { lane, at: 0 }, lens: null });
  const lanes = [stream("baseline", null)];
  if (control) lanes.push(stream("controlled", control));
  await Promise.all(lanes);
  choosePlace();
}

// Run the controlled lane again, soon, if the prompt has been run.
export function controlChanged() {
  changed();
  clearTimeout(settling);
  if (state.lanes.baseline && !isForeign(state.lanes.baseline)) settling = setTimeout(rerun, SETTLE_MS);
}

async function rerun() {
  // A text is held against one of the same prompt and seed only.
  if (!asksTheSame(state.lanes.baseline.request, requestOf(state.model, state.setup, null))) {
    await run();
    return;
  }
  const control = controlOf(state.setup.control);
  if (control) {
    await stream("controlled", control);
  } else {
    running.controlled?.abort();
    state.lanes.controlled = null;
    set({ selected: { lane: "baseline", at: state.selected.at }, told: summary() });
  }
}

// Go on from the tokens before `at` and the token `id` in their lane.
export async function branch(lane, at, id) {
  const parent = state.lanes[lane];
  const token_ids = [...parent.tokens.slice(0, at).map((token) => token.id), id];
  set({ selected: { lane, at } });
  await stream(lane, parent.control, { token_ids, parent });
}

export function leaveBranch(lane) {
  running[lane]?.abort();
  state.lanes[lane] = state.lanes[lane].branch.parent;
  set({ told: summary() });
}

async function stream(lane, control, taken = null) {
  running[lane]?.abort();
  const abort = new AbortController();
  running[lane] = abort;
  const request = taken ? branchOf(taken, control) : requestOf(state.model, state.setup, control);
  const trace = newTrace(state, control, request);
  if (taken) trace.branch = { at: taken.token_ids.length - 1, parent: taken.parent };
  set({ error: "", told: "Generating." });
  try {
    for await (const event of events(request.path, request.body, abort.signal)) {
      take(trace, event);
      // Shown from its first token on, so that what it replaces does not flicker away.
      if (trace.tokens.length > 0) state.lanes[lane] = trace;
      changed();
    }
    if (trace.steered && trace.tokens.length > 0) {
      set({ told: "Reading the text without control." });
      await compare(trace, abort.signal);
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    tell(error);
  } finally {
    if (running[lane] === abort) running[lane] = null;
    if (!isRunning()) state.told = state.error ? "" : summary();
    changed();
  }
}

// Of a branch the request is its parent's, whatever has been set up since.
function branchOf({ parent, token_ids }, control) {
  const { path, body } = parent.request;
  return { path, body: { ...body, logit_control: { ...control, force: { token_ids } } } };
}

function take(trace, event) {
  const choice = event.choices[0];
  if (!choice) return;
  trace.prompt_ids = choice.prompt_token_ids ?? event.prompt_token_ids ?? trace.prompt_ids;
  if (choice.distribution) trace.tokens.push(...tokensOf(choice.distribution, trace));
  trace.finish = choice.finish_reason ?? trace.finish;
}

// If nobody has chosen a token, choose the one that says most: where the lanes part.
function choosePlace() {
  const { baseline, controlled } = state.lanes;
  const parts = divergence(baseline, controlled);
  if (state.selected.at === 0 && parts !== null) set({ selected: { lane: "controlled", at: parts } });
}

function summary() {
  const { baseline, controlled } = state.lanes;
  if (!baseline) return "";
  if (!controlled) return `${baseline.tokens.length} tokens.`;
  const parts = divergence(baseline, controlled);
  if (parts !== null) return `The two texts part at token ${parts + 1}.`;
  const ended = baseline.finish && controlled.finish;
  return ended ? "The two texts are the same." : "Stopped. The two texts are the same so far.";
}
