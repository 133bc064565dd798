// One service on the page: status in, words, tables and charts out.

import { get } from "./api.js";
import { Chart, merged, ms, number, percent, rowsOf } from "./charts.js";

/** What may be done, what it does, and in which phases. */
export const ACTIONS = [
  { word: "pause", label: "Pause", phases: ["waiting", "progressing"],
    text: "It stops rising. It stays judged and may still fall." },
  { word: "resume", label: "Resume", phases: ["paused"],
    text: "It goes on from where it is, with fresh proofs." },
  { word: "promote", label: "Promote", phases: ["waiting", "progressing", "paused"],
    text: "It goes to the next stage now, proven or not." },
  { word: "weight", label: "Set weight …", phases: ["waiting", "progressing", "paused"],
    text: "The canary gets this share, and the rollout pauses there." },
  { word: "rollback", label: "Roll back", phases: ["waiting", "progressing", "paused", "promoted", "idle"],
    text: "All traffic goes back to stable at once.", isGrave: true },
  { word: "retry", label: "Retry", phases: ["rolled_back"],
    text: "The same version starts again, with a fresh account." },
];

const WINDOWS = { "10m": [600, 1], "3h": [10_800, 10], "24h": [86_400, 60] };

const count = new Intl.NumberFormat("en");
const share = (part, of) => (of > 0 ? `${count.format(part)} of ${count.format(of)} (${percent(part / of)})` : "no requests");

const unbroken = (text) => text.replaceAll(" ", "\u00a0");

/** Sets a text only when it is new: what is read aloud is read once. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function cell(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** Fills a table: `columns` are `[title, class]`, each row a list of texts, its first a header. */
function fill(table, columns, rows) {
  const key = JSON.stringify([columns, rows]);
  if (table.dataset.key === key) return;
  table.dataset.key = key;
  const head = document.createElement("thead");
  const titles = document.createElement("tr");
  for (const [title, className] of columns) {
    const one = title ? cell("th", title, className) : cell("td", "");
    if (title) one.scope = "col";
    titles.append(one);
  }
  head.append(titles);
  const body = document.createElement("tbody");
  for (const row of rows) {
    const line = document.createElement("tr");
    row.forEach((text, index) => {
      const one = cell(index === 0 ? "th" : "td", text, columns[index][1]);
      if (index === 0) one.scope = "row";
      line.append(one);
    });
    body.append(line);
  }
  table.replaceChildren(head, body);
}

/** A service's article. */
export class ServiceView {
  constructor(name, act) {
    this.name = name;
    this.act = act;
    this.window = "10m";
    this.rows = [];
    this.quantile = "p99_ms";
    const template = document.getElementById("service");
    this.element = template.content.cloneNode(true).querySelector("article");
    this.element.dataset.service = name;
    const title = this.find("h2");
    title.textContent = name;
    title.id = `service-${name}`;
    this.element.setAttribute("aria-labelledby", title.id);
    this.charts = [...this.element.querySelectorAll("figure")].map((figure) => new Chart(figure));
    this.find(".quantile").addEventListener("change", (event) => {
      this.quantile = event.target.value;
      this.draw();
    });
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  get path() {
    return `api/v1/services/${encodeURIComponent(this.name)}`;
  }

  /** Loads the history of the window; what the page has seen before a restart is kept. */
  async load(window = this.window) {
    if (window !== this.window) this.rows = [];
    this.window = window;
    this.loadedAt = Date.now();
    const columns = await get(`${this.path}/series?window=${window}`).catch(() => null);
    if (columns && this.window === window) this.merge(rowsOf(columns));
    this.draw();
  }

  merge(rows) {
    const [most, period] = WINDOWS[this.window];
    this.rows = merged(this.rows, rows, most, period);
  }

  /** Takes an event. */
  update(status, point) {
    this.status = status;
    if (point) {
      const [, period] = WINDOWS[this.window];
      if (period === 1) this.merge(rowsOf(point));
      else if (Date.now() - this.loadedAt > period * 1_000) this.load();
    }
    const rollout = status.rollout;
    for (const name of ["outlook", "conditions", "transitions"]) {
      this.find(`.${name}`).hidden = !rollout;
    }
    this.find('[data-chart="evidence"]').hidden = !rollout || rollout.mode !== "sequential";
    this.find('[data-chart="weight"]').hidden = status.tracks.length < 2;
    this.compare(point?.ten_seconds ?? {});
    this.reasons();
    this.endpoints();
    if (rollout) this.rollout(rollout);
    else say(this.find(".phase"), "no rollout");
    this.draw();
  }

  rollout(rollout) {
    const { outlook } = rollout;
    const attempt = rollout.attempt > 1 ? `, attempt ${rollout.attempt}` : "";
    const versions = `stable ${rollout.stable_version ?? "–"}, canary ${rollout.version ?? "–"}${attempt}`;
    say(this.find(".versions"), versions);
    const dry = rollout.dry_run ? ", dry run" : "";
    say(this.find(".phase"), `${rollout.phase.replace("_", " ")} at ${rollout.weight} %${dry}`);
    this.find(".outlook").dataset.mood = outlook.mood;
    for (const part of ["headline", "certainty", "cost", "next"]) {
      say(this.find(`.${part}`), outlook[part] || "–");
    }
    say(this.find(".explain"), rollout.explain);
    this.stages(rollout);
    this.actions(rollout);
    this.conditions(outlook.conditions);
    const moved = JSON.stringify([rollout.tallies.transitions, rollout.version, rollout.attempt]);
    if (moved !== this.moved) {
      this.moved = moved;
      this.transitions();
    }
  }

  stages(rollout) {
    const list = this.find(".stages");
    const key = JSON.stringify([rollout.stages, rollout.weight]);
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    list.replaceChildren(...rollout.stages.map((weight, index) => {
      const isCurrent = index + 1 === rollout.stage;
      const item = cell("li", `${weight} %`, weight <= rollout.weight ? "passed" : "");
      if (isCurrent) item.setAttribute("aria-current", "step");
      return item;
    }));
  }

  actions(rollout) {
    const place = this.find(".actions");
    const isAllowed = (action) =>
      action.phases.includes(rollout.phase) &&
      (action.word !== "rollback" || rollout.phase !== "idle" || rollout.weight > 0);
    if (place.childElementCount === 0) {
      for (const action of ACTIONS) {
        const button = cell("button", action.label, action.isGrave ? "grave" : "");
        button.type = "button";
        button.dataset.action = action.word;
        button.addEventListener("click", () => this.act(this, action, button));
        place.append(button);
      }
    }
    ACTIONS.forEach((action, index) => {
      place.children[index].disabled = !isAllowed(action);
    });
  }

  conditions(conditions) {
    this.find(".conditions").hidden = conditions.length === 0;
    const list = this.find(".conditions ul");
    const key = JSON.stringify(conditions);
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    list.replaceChildren(...conditions.map((condition) => {
      const item = document.createElement("li");
      if (condition.holds) item.className = "holds";
      const mark = cell("span", condition.holds ? "✓" : "…", "mark");
      mark.setAttribute("aria-hidden", "true");
      const progress = document.createElement("progress");
      progress.max = 1;
      progress.value = condition.progress;
      progress.setAttribute("aria-label", `${condition.name}: ${condition.holds ? "holds" : "missing"}`);
      item.append(mark, cell("span", condition.name), progress, cell("span", condition.says));
      return item;
    }));
  }

  compare(figures) {
    const { tracks, rollout } = this.status;
    const arms = (key, name) => rollout?.[key]?.[name];
    const last = (name, key) => figures[name]?.[key]?.at(-1);
    const each = (title, of, limit) => [title, ...tracks.map((track) => of(track.name, track)), ...(rollout ? [limit] : [])];
    const errors = (key) => (name) => {
      const arm = arms(key, name);
      return arm ? share(arm.errors, arm.requests) : "–";
    };
    const cut = (index) => ms(rollout?.cuts_ms.canary[index]);
    const rows = [
      each("version", (_, track) => track.version ?? "–", ""),
      each("share desired", (_, track) => `${number(track.weight)} %`, ""),
      each("share observed, 10 s", (name) => percent(last(name, "share")), ""),
      each("requests a second, 10 s", (name) => number(last(name, "rps")), ""),
      each("errors, 10 s", (name) => percent(last(name, "errors")), ""),
    ];
    if (rollout) {
      const { ratio, slack } = rollout.error_limit;
      const limit = `${ratio} × stable + ${percent(slack)}`;
      rows.push(each("errors, this stage", errors("stage_evidence"), limit));
      rows.push(each("errors, whole rollout", errors("run_evidence"), limit));
    }
    rows.push(each("p50, 10 s", (name) => ms(last(name, "p50_ms")), ""));
    rows.push(each("p90, 10 s", (name) => ms(last(name, "p90_ms")), cut(1)));
    rows.push(each("p99, 10 s", (name) => ms(last(name, "p99_ms")), cut(0)));
    const columns = [["", ""], ...tracks.map((track) => [track.name, track.name]), ...(rollout ? [["limit", ""]] : [])];
    fill(this.find(".compare table"), columns, rows);
  }

  reasons() {
    const { tracks } = this.status;
    const names = Object.keys(tracks[0]?.assigned ?? {});
    const rows = tracks.map((track) => [track.name, ...names.map((name) => count.format(track.assigned[name]))]);
    fill(this.find(".reasons table"), [["track", ""], ...names.map((name) => [name, "number"])], rows);
  }

  endpoints() {
    const rows = this.status.tracks.flatMap((track) => track.endpoints.map((endpoint) => [
      endpoint.address, track.name, health(endpoint), `${endpoint.connections}`,
      `${endpoint.connect_failures}`, `${endpoint.ejections}`,
    ]));
    const columns = [["address", ""], ["track", ""], ["health", ""], ["connections", "number"],
      ["failed connects", "number"], ["ejections", "number"]];
    fill(this.find(".endpoints table"), columns, rows);
  }

  async transitions() {
    const answer = await get(`${this.path}/history`).catch(() => null);
    if (!answer) return;
    const rows = answer.history.slice(-50).reverse().map((one) => [
      new Date(one.at_ms).toLocaleString(), one.version, unbroken(`${one.from.replace("_", " ")} → ${one.to.replace("_", " ")}`),
      unbroken(`${one.weight_before} → ${one.weight} %`), one.actor, one.why,
    ]);
    const columns = [["when", ""], ["version", ""], ["phase", ""], ["weight", ""], ["by", ""], ["why", "why"]];
    fill(this.find(".transitions table"), columns, rows);
  }

  draw() {
    const rollout = this.status?.rollout;
    const options = { quantile: this.quantile, limit: rollout?.limit ?? 100, hold: rollout?.hold ?? 10 };
    for (const chart of this.charts) chart.show(this.rows, options);
  }
}

function health(endpoint) {
  if (endpoint.state === "out") return endpoint.ejections > 0 ? "out: ejected, or not ready" : "out: not ready";
  if (endpoint.state === "warming_up") return `warming up, at ${endpoint.standing} % of its due`;
  return endpoint.state.replace("_", " ");
}
