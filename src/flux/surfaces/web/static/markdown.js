// Markdown as DOM. Nothing that was written by a model, a tool or a person becomes live markup: HTML in the text is
// shown as text, and what the Markdown makes passes the sanitiser, which knows only the few elements listed here.

import DOMPurify from "./vendor/purify.js";
import hljs from "./vendor/highlight.js";
import { Marked } from "./vendor/marked.js";

const MOST_HIGHLIGHTED = 12_000; // characters of one block of code: more would hold up a frame or two
const CLEAN = {
  ALLOWED_TAGS: ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code",
    "span", "em", "strong", "del", "a", "table", "thead", "tbody", "tr", "th", "td"],
  ALLOWED_ATTR: ["href", "title", "class", "align", "start", "target", "rel"],
  ADD_URI_SAFE_ATTR: ["align", "start", "target", "rel"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

const escape = (text) =>
  text.replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);

const safe = (href) => /^(?:https?:\/\/|mailto:)/i.test(href || "");

const linked = (href, title, inner) =>
  safe(href)
    ? `<a href="${escape(href)}" title="${escape(title || href)}" target="_blank" rel="noopener noreferrer nofollow">${inner}</a>`
    : inner;

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text, block }) => (block ? `<p>${escape(text.trim())}</p>` : escape(text)),
    link({ href, title, tokens }) {
      return linked(href, title, this.parser.parseInline(tokens));
    },
    // A picture would tell its server who reads this.
    image: ({ href, title, text }) => linked(href, title, `🖼 ${escape(text || href)}`),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code: ({ text, lang }) => {
      const name = (lang || "").match(/^[\w+#.-]*/)[0];
      const known = name && text.length <= MOST_HIGHLIGHTED && hljs.getLanguage(name);
      const inner = known ? hljs.highlight(text, { language: name, ignoreIllegals: true }).value : escape(text);
      return `<pre><code class="hljs">${inner}</code></pre>`;
    },
  },
});

function fragmentOf(token, links) {
  const tokens = [token];
  tokens.links = links;
  const fragment = DOMPurify.sanitize(marked.Parser.parse(tokens, marked.defaults), CLEAN);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = document.createElement("div");
    frame.className = "table";
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

function lex(text, links) {
  const lexer = new marked.Lexer(marked.defaults);
  Object.assign(lexer.tokens.links, links);
  const tokens = lexer.lex(text);
  Object.assign(links, tokens.links);
  return tokens;
}

// Draws a growing text into an element: finished blocks once, only the unfinished tail again.
export class Growing {
  constructor(element) {
    this.element = element;
    this.reset();
  }

  reset() {
    this.element.replaceChildren();
    this.text = "";
    this.offset = 0;
    this.links = {};
    this.tail = null;
    this.done = false;
  }

  // Returns how long it took, in ms.
  draw(text, done) {
    if (text === this.text && done === this.done) return 0;
    const begun = performance.now();
    if (this.done || !text.startsWith(this.text.slice(0, this.offset)) || text.length < this.offset) this.reset();
    this.text = text;
    this.done = done;
    const tokens = lex(text.slice(this.offset), this.links);
    let last = tokens.length;
    if (!done) while (last > 0 && tokens[last - 1].type === "space") last -= 1;
    const settled = done ? tokens.length : Math.max(0, last - 1);
    for (const token of tokens.slice(0, settled)) this.settle(token);
    this.drawTail(settled < tokens.length ? tokens[settled] : null);
    return performance.now() - begun;
  }

  settle(token) {
    this.offset += token.raw.length;
    if (token.type === "space" || token.type === "def") return;
    const block = document.createElement("div");
    block.className = "block";
    block.append(fragmentOf(token, this.links));
    if (token.type === "code") block.append(copier(token.text));
    if (this.tail) this.tail.before(block);
    else this.element.append(block);
  }

  drawTail(token) {
    if (!token) {
      this.tail?.remove();
      this.tail = null;
      return;
    }
    if (!this.tail) {
      this.tail = document.createElement("div");
      this.element.append(this.tail);
    }
    this.tail.className = "block tail";
    if (token.type !== "code") {
      this.tail.replaceChildren(fragmentOf(token, this.links));
      this.code = null;
      return;
    }
    // Code may be long: its text grows in place.
    if (!this.code?.isConnected) {
      const pre = document.createElement("pre");
      this.code = document.createElement("code");
      this.code.className = "hljs";
      pre.append(this.code);
      this.tail.replaceChildren(pre);
    }
    this.code.textContent = token.text;
  }
}

function copier(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}
