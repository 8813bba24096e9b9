// The few parts of Preact and htm that the page is written with.
import { Component, h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { Component, render };
