// The kinds of control that the page has no form of its own for, read from /openapi.json.
import { ApiError, get } from "./api.js";
import { OWN } from "./request.js";
import { set } from "./state.js";

// Without the schema the page has its own forms only.
export async function loadKinds() {
  try {
    const { components } = await get("openapi.json");
    set({ kinds: kindsOf(components?.schemas ?? {}) });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
}

function kindsOf(schemas) {
  const kinds = Object.entries(schemas.LogitControl?.properties ?? {});
  return kinds.filter(([name]) => !OWN.includes(name)).map(([name, schema]) => kindOf(name, schema, schemas));
}

function kindOf(name, schema, schemas) {
  const { items, ...field } = resolved(schema, schemas);
  const form = items ? resolved(items, schemas) : field;
  const fields = Object.entries(form.properties ?? {}).map(([each, own]) => {
    const required = form.required?.includes(each) ?? false;
    return fieldOf({ ...resolved(own, schemas), name: each, required });
  });
  return { name, single: !items, hint: field.description ?? form.description, fields };
}

// Return a schema with what it refers to in it; `nullable` stands for a choice of null.
function resolved({ $ref, anyOf = [], ...schema }, schemas) {
  const choices = anyOf.filter(({ type }) => type !== "null");
  const nullable = choices.length < anyOf.length;
  if ($ref) return { ...resolved(schemas[$ref.split("/").at(-1)] ?? {}, schemas), ...schema };
  if (choices.length === 1) return { ...resolved(choices[0], schemas), ...schema, nullable };
  return { ...schema, nullable };
}

// Return what a form needs: how the field is drawn, and the value `start` that it begins with.
function fieldOf(schema) {
  const options = schema.enum ?? ("const" in schema ? [schema.const] : null);
  const field = { ...schema, ...rangeOf(schema), options, hint: schema.description };
  return { ...field, drawn: drawnAs(field), start: schema.default ?? (schema.nullable ? null : first(field)) };
}

function drawnAs({ name, type, properties, options, nullable, low, high }) {
  if (name === "when" && properties?.from && properties.until) return "window";
  if (options) return "select";
  if (type === "boolean") return "check";
  if (type === "string") return "text";
  if (type !== "number" && type !== "integer") return "json";
  // A slider cannot say null, and needs two ends.
  return !nullable && low < high ? "slider" : "number";
}

function first({ type, options, low = -Infinity, high = Infinity }) {
  if (options) return options[0];
  if (type === "number" || type === "integer") return Math.min(high, Math.max(low, 0));
  return { boolean: false, string: "", array: [], object: {} }[type] ?? null;
}

// Return a number's ends and steps; the slider leaves out an end that is not allowed.
function rangeOf({ type, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf }) {
  const whole = type === "integer";
  const least = minimum ?? exclusiveMinimum;
  const most = maximum ?? exclusiveMaximum;
  const hundredth = 10 ** Math.floor(Math.log10((most - least) / 100));
  const step = multipleOf ?? (whole ? Math.max(1, hundredth) : hundredth);
  const inside = whole ? 1 : step;
  const low = minimum ?? (least === undefined ? undefined : least + inside);
  const high = maximum ?? (most === undefined ? undefined : most - inside);
  return { step, low, high, exact: whole ? 1 : "any", ...(whole ? { least: low, most: high } : { least, most }) };
}
