// Talking to the server: JSON, server-sent events, and errors as sentences.
import { state } from "./state.js";

// The page may live under a prefix; the API is beside it.
export const ROOT = new URL("..", document.baseURI);

const SILENT = "The server does not answer. Is it still running?";
const BROKEN = "The connection broke off before the answer had ended. Is the server still running?";

export class ApiError extends Error {
  // `asksKey`: another API key than the one sent, if any, would help.
  constructor(message, asksKey = false) {
    super(message);
    this.asksKey = asksKey;
  }
}

export async function get(path) {
  return json(await send(path, {}));
}

export async function post(path, body, signal) {
  return json(await send(path, request(body, signal)));
}

function json(answer) {
  return told(answer.json(), BROKEN);
}

// Return what a promise of the network does; in place of its error, unless the page gave up
// itself, throw a sentence.
async function told(promise, otherwise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(otherwise);
  }
}

// Yield the parsed events of an answer that the body asks to stream; one that is an error is
// thrown, and so is an end that the server has not said.
export async function* events(path, body, signal) {
  const answer = await send(path, request(body, signal));
  let rest = "";
  for await (const text of chunks(answer.body)) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      if (!line.startsWith("data: {")) continue;
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw new ApiError(sentence(event.error));
      yield event;
    }
  }
  throw new ApiError(BROKEN);
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await told(reader.read(), BROKEN);
      if (done) return;
      yield value;
    }
  } finally {
    // Leaving early must end the request: a server learns from it that nobody reads on.
    reader.cancel().catch(() => {});
  }
}

function request(body, signal) {
  const headers = { "content-type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

async function send(path, options) {
  const headers = { ...options.headers };
  if (state.key) headers.authorization = `Bearer ${state.key}`;
  const answer = await told(fetch(new URL(path, ROOT), { ...options, headers }), SILENT);
  if (answer.ok) return answer;
  if (answer.status === 401) {
    throw new ApiError(state.key ? "The server does not know this API key." : "The server asks for an API key.", true);
  }
  const body = await answer.json().catch(() => ({}));
  const fallback = { message: `the server answered ${answer.status} to ${path}` };
  throw new ApiError(sentence(body.error ?? fallback), answer.status === 403);
}

// What the page calls a field of a request.
const FIELDS = {
  messages: "Prompt",
  prompt: "Prompt",
  max_tokens: "Most tokens",
  temperature: "Temperature",
  seed: "Seed",
  "distribution.top_k": "Alternatives",
};

function sentence({ message, param }) {
  const text = String(message).trim().replace(/\.$/, "");
  // The page has a name of its own for the field.
  if (param in FIELDS) return `${FIELDS[param]}: ${text.replace(`${param}: `, "")}.`;
  // A field's path, with which a refusal begins, keeps its spelling.
  const isLed = param && text.startsWith(`${param}: `);
  return `${isLed ? text : text.charAt(0).toUpperCase() + text.slice(1)}.`;
}
