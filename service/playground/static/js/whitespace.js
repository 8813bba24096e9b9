// Text of tokens as people can see it: spaces, line breaks and what is no text at all.
import { html } from "./dom.js";

const SIGNS = {
  " ": "·",
  "\n": "↵",
  "\t": "⇥",
  "\r": "␍",
  "\u00A0": "⍽", // a space at which no line breaks
  "\u3000": "□", // one as wide as an ideograph
  "\u200B": "¦", // one without width
};

// Return a token's text as nodes, white space as grey signs that screen readers skip; `after` is
// what follows each sign of a line break.
export function shown(text, after = null) {
  if (text === "") return html`<span class="sign">∅</span>`;
  return text
    .split(/([ \n\t\r\u00A0\u3000\u200B]|\uFFFD)/)
    .filter(Boolean)
    .map((part) => {
      if (part === "\uFFFD") return html`<span class="sign" title="part of a character">◌</span>`;
      if (!(part in SIGNS)) return part;
      // A line may break where there is white space, though none is left to see.
      const sign = html`<wbr /><span class="sign" aria-hidden="true">${SIGNS[part]}</span>`;
      return part === "\n" ? [sign, after] : sign;
    });
}

// Return a token's text for labels that are read aloud.
export function spoken(text) {
  if (text === "") return "no text";
  return text.replaceAll("\n", "line break").replaceAll("\t", "tab").trim() || "space";
}
