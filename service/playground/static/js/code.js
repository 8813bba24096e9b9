// A request as code: curl, and Python with the openai client.
import { ROOT } from "./api.js";
import { state } from "./state.js";

export const LANGUAGES = { curl, Python: python };

function curl({ path, body }) {
  const key = state.key ? ` \\\n  -H "authorization: Bearer $SENSEFIELD_API_KEY"` : "";
  const data = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `curl --no-buffer '${new URL(path, ROOT)}' \\\n  -H 'content-type: application/json'${key} \\\n  -d '${data}'\n`;
}

function python({ path, body }) {
  // What OpenAI's own API does not have goes into its client's extra_body.
  const { return_token_ids, logit_control, distribution, ...fields } = body;
  const extra = { return_token_ids, ...(logit_control && { logit_control }), distribution };
  const chat = path.includes("chat");
  const named = Object.entries(fields).map(([name, value]) => `    ${name}=${literal(value, 4)},\n`);
  const key = state.key ? 'os.environ["SENSEFIELD_API_KEY"]' : '"none"';
  return [
    state.key ? "import os\n\n" : "",
    "import openai\n\n",
    `client = openai.OpenAI(base_url="${new URL("v1", ROOT)}", api_key=${key})\n`,
    `events = client.${chat ? "chat.completions" : "completions"}.create(\n`,
    `${named.join("")}    extra_body=${literal(extra, 4)},\n)\n`,
    "for event in events:\n",
    "    for choice in event.choices:\n",
    `        print(choice.${chat ? "delta.content" : "text"}, choice.model_extra.get("distribution"))\n`,
  ].join("");
}

// Return a JSON value as Python writes it, indented by so many spaces.
function literal(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = " ".repeat(indent + 4);
  const entries = Array.isArray(value)
    ? value.map((each) => literal(each, indent + 4))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${literal(each, indent + 4)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const line = `${open}${entries.join(", ")}${close}`;
  if (indent + line.length <= 80 && !line.includes("\n")) return line;
  return `${open}\n${entries.map((each) => `${inner}${each},\n`).join("")}${" ".repeat(indent)}${close}`;
}
