// The request as code to copy: curl, and Python with the openai client.
import { ROOT } from "./api.js";
import { bodyOf, controlOf, pathOf } from "./request.js";
import { state } from "./state.js";

export function curl() {
  const url = new URL(pathOf(state.setup), ROOT);
  const key = state.key ? ` \\\n  -H "authorization: Bearer $SENSEFIELD_API_KEY"` : "";
  const body = JSON.stringify(body_(), null, 2).replaceAll("'", "'\\''");
  return `curl '${url}' \\\n  -H 'content-type: application/json'${key} \\\n  -d '${body}'\n`;
}

export function python() {
  const { logit_control, distribution, ...fields } = body_();
  const extra = { ...(logit_control && { logit_control }), distribution };
  const method = state.setup.mode === "chat" ? "chat.completions" : "completions";
  const text = state.setup.mode === "chat" ? "message.content" : "text";
  const named = Object.entries(fields).map(([name, value]) => `    ${name}=${literal(value, 4)},\n`);
  const key = state.key ? 'os.environ["SENSEFIELD_API_KEY"]' : '"none"';
  return [
    state.key ? "import os\n\n" : "",
    "import openai\n\n",
    `client = openai.OpenAI(base_url="${new URL("v1", ROOT)}", api_key=${key})\n`,
    `answer = client.${method}.create(\n${named.join("")}    extra_body=${literal(extra, 4)},\n)\n`,
    `choice = answer.choices[0]\nprint(choice.${text})\nprint(choice.distribution["sampled"].keys())\n`,
  ].join("");
}

function body_() {
  return bodyOf(state.model, state.setup, controlOf(state.setup.control));
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
