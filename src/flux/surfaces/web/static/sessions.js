// The list of sessions: searched, read page by page, looked at again when something may have changed.

import { api } from "./api.js";

const PAGE = 30;
const TYPING_MS = 200;

export class SessionList {
  constructor(onChange) {
    this.items = [];
    this.next = null;
    this.q = "";
    this.loaded = false;
    this.onChange = onChange;
    this.asked = 0;
  }

  search(q) {
    this.q = q.trim();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), TYPING_MS);
  }

  // The first page again; what was read behind it is kept.
  async refresh() {
    const asked = (this.asked += 1);
    try {
      const page = await api.sessions({ q: this.q, limit: PAGE });
      if (asked !== this.asked) return;
      const fresh = new Set(page.items.map((row) => row.id));
      const same = this.shownFor === this.q && this.items.length > PAGE;
      const kept = same ? this.items.slice(PAGE).filter((row) => !fresh.has(row.id)) : [];
      this.items = [...page.items, ...kept];
      if (!kept.length) this.next = page.next_cursor;
      Object.assign(this, { shownFor: this.q, problem: null });
    } catch (error) {
      this.problem = error.message;
    }
    this.loaded = true;
    this.onChange();
  }

  async more() {
    const asked = (this.asked += 1);
    try {
      const page = await api.sessions({ q: this.q, limit: PAGE, cursor: this.next });
      if (asked !== this.asked) return;
      const known = new Set(this.items.map((row) => row.id));
      this.items = [...this.items, ...page.items.filter((row) => !known.has(row.id))];
      this.next = page.next_cursor;
    } catch (error) {
      this.problem = error.message;
    }
    this.onChange();
  }

  changed(row) {
    this.items = this.items.map((one) => (one.id === row.id ? row : one));
    this.onChange();
  }
}
