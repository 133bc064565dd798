// Charts by uPlot: rows in, lines out.

/* global uPlot */

const HEIGHT_PX = 170;
/** Evidence below this says nothing; the scale starts here. */
const EVIDENCE_MIN = 0.1;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** `light-dark()` is resolved by an element, not by the property. */
function resolved(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value || color(name);
}

export const number = (value) => (value == null ? "–" : `${+value.toPrecision(3)}`);
export const percent = (value) => (value == null ? "–" : `${number(value * 100)} %`);
export const ms = (value) => (value == null ? "–" : `${number(value)} ms`);
const wealth = (value) => (value == null ? "–" : value.toPrecision(3));

const track = (name, key) => (row) => row.tracks[name]?.[key] ?? null;

/** What each chart shows of a row: name, colour, dashes and value of every line. */
const LINES = {
  errors: () => [
    ["stable", "--stable", null, track("stable", "errors")],
    ["canary", "--canary", null, track("canary", "errors")],
    ["limit", "--limit", [6, 4], (row) => row.limits.errors],
  ],
  latency: ({ quantile }) => [
    ["stable", "--stable", null, track("stable", quantile)],
    ["canary", "--canary", null, track("canary", quantile)],
    ...(quantile === "p50_ms" ? [] : [["limit", "--limit", [6, 4], (row) => row.limits[quantile]]]),
  ],
  evidence: ({ limit, hold }) => [
    ["evidence", "--canary", null, (row) => (row.e == null ? null : Math.max(row.e, EVIDENCE_MIN))],
    ["no advance", "--doubtful", [2, 4], () => hold],
    ["rollback", "--limit", [6, 4], () => limit],
  ],
  weight: () => [
    ["desired", "--canary", [6, 4], track("canary", "weight")],
    ["observed", "--canary", null, track("canary", "share")],
  ],
  rps: () => [
    ["stable", "--stable", null, track("stable", "rps")],
    ["canary", "--canary", null, track("canary", "rps")],
  ],
};

const FORMAT = { errors: percent, latency: ms, evidence: wealth, weight: percent, rps: number };

/** One chart in its figure. */
export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.kind = figure.dataset.chart;
    this.said = figure.querySelector("figcaption p");
    this.place = document.createElement("div");
    this.place.setAttribute("role", "img");
    figure.append(this.place);
    this.isVisible = false;
    this.plot = null;
    new IntersectionObserver((entries) => {
      this.isVisible = entries.at(-1).isIntersecting;
      if (this.isVisible) this.draw();
    }).observe(figure);
    new ResizeObserver(() => this.resize()).observe(figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
  }

  /** Shows `rows`; `options` hold the quantile and the judge's bounds. */
  show(rows, options) {
    const key = JSON.stringify(options);
    if (key !== this.key) this.restyle();
    [this.rows, this.options, this.key] = [rows, options, key];
    if (this.isVisible) this.draw();
    this.say(LINES[this.kind](options));
  }

  restyle() {
    this.plot?.destroy();
    this.plot = null;
    if (this.isVisible && this.rows) this.draw();
  }

  resize() {
    const width = this.figure.clientWidth;
    if (this.plot && width > 0) this.plot.setSize({ width, height: HEIGHT_PX });
  }

  draw() {
    if (!this.rows || this.figure.clientWidth === 0) return;
    const lines = LINES[this.kind](this.options);
    const data = [
      this.rows.map((row) => row.at),
      ...lines.map(([, , , value]) => this.rows.map((row) => (row.isGap ? null : value(row)))),
    ];
    if (this.plot) this.plot.setData(data);
    else this.plot = new uPlot(this.settings(lines), data, this.place);
  }

  /** The last values in words, for eyes and for screen readers. */
  say(lines) {
    const last = this.rows.findLast((row) => !row.isGap);
    const format = FORMAT[this.kind];
    const words = lines.map(([name, , , value]) => `${name} ${format(last ? value(last) : null)}`);
    const text = words.join(", ");
    if (this.said.textContent !== text) {
      this.said.textContent = text;
      const title = this.figure.querySelector("h3").textContent;
      this.place.setAttribute("aria-label", `${title}: ${text}`);
    }
  }

  settings(lines) {
    const [soft, line] = [resolved("--soft"), resolved("--line")];
    const format = FORMAT[this.kind];
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    const isLog = this.kind === "evidence";
    const values = (_, splits) => splits.map((value) => (value == null ? "" : format(value)));
    return {
      width: this.figure.clientWidth,
      height: HEIGHT_PX,
      cursor: { points: { size: 6 }, drag: { x: false, y: false } },
      scales: {
        x: { time: true },
        y: isLog
          ? { distr: 3, range: (_, min, max) => [EVIDENCE_MIN, Math.max(this.options.limit * 2, max)] }
          : { range: (_, min, max) => [0, max > 0 ? max * 1.1 : 1] },
      },
      axes: [
        { ...axis, space: 70 },
        { ...axis, size: 62, ...(isLog ? { splits: decades, values: (_, splits) => splits.map(String) } : { values }) },
      ],
      series: [
        {},
        ...lines.map(([label, name, dash]) => ({
          label,
          stroke: resolved(name),
          width: dash ? 1.5 : 2,
          dash: dash ?? undefined,
          points: { show: false },
          value: (_, value) => format(value),
        })),
      ],
    };
  }
}

/** Lines of a logarithmic scale: powers of ten only. */
function decades(_, axis, min, max) {
  const splits = [];
  for (let power = Math.ceil(Math.log10(min)); power <= Math.log10(max); power += 1) {
    splits.push(+(10 ** power).toPrecision(1));
  }
  return splits;
}

/** Columns of the API as rows, oldest first; a hole in time becomes a hole in the lines. */
export function rowsOf(columns) {
  return columns.at_s.map((at, index) => ({
    at,
    e: columns.e[index],
    limits: pick(columns.limits, index),
    tracks: Object.fromEntries(
      Object.entries(columns.tracks).map(([name, track]) => [name, pick(track, index)]),
    ),
  }));
}

function pick(columns, index) {
  return Object.fromEntries(Object.entries(columns).map(([name, list]) => [name, list[index]]));
}

/** `known` and `more` in the order of time, the last `most` seconds of them. */
export function merged(known, more, mostSeconds, periodSeconds) {
  const byTime = new Map(known.filter((row) => !row.isGap).map((row) => [row.at, row]));
  for (const row of more) byTime.set(row.at, row);
  const rows = [...byTime.values()].sort((a, b) => a.at - b.at);
  const from = (rows.at(-1)?.at ?? 0) - mostSeconds;
  const out = [];
  for (const row of rows) {
    if (row.at < from) continue;
    const before = out.at(-1);
    if (before && row.at - before.at > 3 * periodSeconds) out.push({ at: before.at + periodSeconds, isGap: true });
    out.push(row);
  }
  return out;
}
