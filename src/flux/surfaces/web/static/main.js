import { html, render } from "./vendor/htm-preact.js";
import { App } from "./components/app.js";

render(html`<${App} />`, document.getElementById("app"));
