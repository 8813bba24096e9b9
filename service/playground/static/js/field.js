// A field that counts once it is left or Enter is pressed; drawing the page leaves it alone till then.
import { Component, html } from "./dom.js";

export class Field extends Component {
  shouldComponentUpdate() {
    return document.activeElement !== this.element;
  }

  render({ onFinish, ...fields }) {
    const finish = ({ target }) => target.reportValidity() && onFinish(target.value);
    return html`<input ref=${(element) => (this.element = element)} ...${fields} onChange=${finish} />`;
  }
}
