// The page: which session is open, and what stands around it.

import { Component, html } from "../vendor/htm-preact.js";
import { api, newKey } from "../api.js";
import { Session } from "../live.js";
import { SessionList } from "../sessions.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { Panel } from "./panel.js";
import { Sidebar } from "./sidebar.js";
import { spentText } from "./text.js";

const WORDS = { working: "Working", waiting: "Waits for you", idle: "", ended: "Ended" };

export class App extends Component {
  constructor() {
    super();
    this.list = new SessionList(() => this.setState({}));
    this.state = { page: null, session: null };
  }

  componentDidMount() {
    addEventListener("hashchange", this.route);
    document.addEventListener("keydown", this.key);
    document.addEventListener("visibilitychange", () => document.hidden || this.list.refresh());
    this.route();
    this.list.refresh();
    this.about();
  }

  async about() {
    try {
      this.setState({ page: await api.page() });
    } catch (error) {
      this.setState({ problem: error.message });
      if (error.away) setTimeout(() => this.about(), 2000);
    }
  }

  route = () => {
    const id = location.hash.match(/^#\/s\/([\w-]+)/)?.[1] || "";
    if (id === (this.state.session?.id || "")) return;
    this.state.session?.close();
    const session = id ? new Session(id, (restless) => this.changed(session, restless)) : null;
    this.setState({ session, drawer: false, problem: null });
    session?.open();
  };

  changed(session, restless) {
    if (session !== this.state.session) return;
    this.setState({});
    if (!restless) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(session), 300);
  }

  // A run began or ended: its title and state are in the list.
  async refresh(session) {
    this.list.refresh();
    try {
      session.row = { ...session.row, ...(await api.session(session.id)) };
      this.setState({});
    } catch {
      // The stream says what is wrong with the server.
    }
  }

  key = (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    if (this.state.drawer) this.toggle();
    else if (["working", "waiting"].includes(this.state.session?.status)) this.state.session.stop();
  };

  send = async (text, mode) => {
    const { session } = this.state;
    if (session) {
      session.send(text, mode);
      return true;
    }
    // The same key until it is taken: a lost answer starts no second session.
    if (this.begun?.text !== text) this.begun = { text, key: newKey() };
    this.setState({ starting: true, problem: null });
    try {
      const { id } = await api.start(text, this.begun.key);
      this.begun = null;
      this.setState({ starting: false });
      location.hash = `#/s/${id}`;
      this.list.refresh();
      return true;
    } catch (error) {
      this.setState({ starting: false, problem: error.message });
      return false;
    }
  };

  fork = async (item) => {
    try {
      const { id } = await api.fork(this.state.session.id, item.cut);
      this.setState({ draft: { text: item.text } });
      location.hash = `#/s/${id}`;
    } catch (error) {
      this.state.session.tell(error);
    }
  };

  rename = async (title) => {
    const { session } = this.state;
    try {
      session.row = await api.rename(session.id, title);
      this.list.changed(session.row);
    } catch (error) {
      session.tell(error);
    }
  };

  // The drawer of a small screen takes the focus, and gives it back.
  toggle = () => {
    const drawer = !this.state.drawer;
    this.setState({ drawer }, () => this.base.querySelector(drawer ? ".sidebar .new" : ".menu").focus());
  };

  render(_, { page, session, drawer, problem, starting, draft }) {
    const status = session?.status || "idle";
    const title = session?.row?.title || (session ? "" : "New chat");
    document.title = `${status === "waiting" ? "● " : ""}${title || "Session"} · ${page?.agent || "Flux"}`;
    const said = session?.problem || problem;
    return html`<div class="page">
      <${Sidebar} list=${this.list} current=${session?.id} agent=${page?.agent} open=${drawer} onClose=${() => this.setState({ drawer: false })} />
      ${drawer && html`<div class="veil" onClick=${this.toggle}></div>`}
      <div class="stage" inert=${!!drawer}>
        <header class="top">
          <button type="button" class="menu" onClick=${this.toggle} aria-label="Sessions" aria-expanded=${!!drawer} aria-controls="sessions">☰</button>
          <${Title} key=${session?.id} title=${title} onRename=${session?.row && this.rename} />
          <span class="grow"></span>
          ${WORDS[status] && html`<span class=${`state ${status}`} role="status">${WORDS[status]}</span>`}
          ${session?.row && html`<a class="link export" href=${api.exported(session.id, "markdown")} download
            title="Save this session as Markdown">Export</a>`}
          ${session && html`<span class="spent" title="Tokens and cost of this session">${spentText(session.spent)}</span>`}
        </header>
        ${session && !session.connected && html`<p class="banner" role="status">Reconnecting… what runs goes on.</p>`}
        ${said && html`<p class="banner problem" role="alert">${said}
          ${session?.problem && html`<button type="button" class="link" onClick=${session.forget}>Close</button>`}</p>`}
        <div class="middle">
          <div class="talk">
            ${session ? html`<${Open} session=${session} page=${page} fork=${this.fork} />` : html`<${Welcome} page=${page} />`}
            <${Composer} place=${session?.id || ""} draft=${draft} working=${status === "working" || status === "waiting"} disabled=${starting}
              stopping=${session?.state.stopping} ended=${status === "ended" || !!session?.gone} onSend=${this.send} onStop=${() => session.stop()} />
          </div>
          ${session && html`<${Panel} state=${session.state} />`}
        </div>
      </div>
    </div>`;
  }
}

class Title extends Component {
  componentDidUpdate(_, before) {
    if (this.state.editing && !before.editing) this.base.querySelector("input").select();
  }

  key = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.setState({ editing: false });
  };

  save = (event) => {
    event.preventDefault();
    const title = event.target.elements.title.value.trim();
    this.setState({ editing: false });
    if (title && title !== this.props.title) this.props.onRename(title);
  };

  render({ title, onRename }, { editing }) {
    if (editing) {
      return html`<form class="renaming" onSubmit=${this.save} onKeyDown=${this.key}>
        <input name="title" value=${title} maxlength="256" aria-label="Title" /><button>Save</button></form>`;
    }
    return html`<div class="renaming"><h1 title=${title}>${title}</h1>
      ${onRename && html`<button type="button" class="link" onClick=${() => this.setState({ editing: true })}>Rename</button>`}</div>`;
  }
}

const Open = ({ session, page, fork }) =>
  session.loading
    ? html`<main class="conversation"><p class="working"><i class="spin"></i></p></main>`
    : html`<${Conversation} key=${session.id} session=${session} onFork=${page?.fork ? fork : null} />`;

const Welcome = ({ page }) => html`<main class="conversation welcome"><div>
  <h2>${page?.agent || ""}</h2>
  ${page?.description && html`<p>${page.description}</p>`}
  ${page?.model && html`<p class="model">${page.model}</p>`}
  ${page?.problems?.map((text) => html`<p class="problem" key=${text}>${text}</p>`)}
</div></main>`;
