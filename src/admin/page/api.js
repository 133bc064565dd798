// The admin API: questions, commands, and the stream of events.

const TOKEN = "splitway-token";
/** An event comes every second; a stream that is silent for so long has lost its server. */
const SILENCE_MS = 5_000;
const RETRY_MS = 1_000;

/** What the gateway says is wrong. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

function request(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers, cache: "no-store" });
}

async function problem(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body.detail ?? `the gateway answered ${response.status}`);
}

/** The JSON at `path`. */
export async function get(path) {
  const response = await request(path);
  if (!response.ok) throw await problem(response);
  return response.json();
}

/** Gives a command. */
export async function post(path, body) {
  const headers = { "content-type": "application/json" };
  const response = await request(path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw await problem(response);
  return response.json();
}

/**
 * Follows the events for ever, through restarts of the server.
 *
 * `EventSource` would do the same but for the token, which it cannot send.
 */
export async function follow({ event, opened, lost }) {
  for (;;) {
    try {
      await stream(event, opened);
      lost(new Problem(0, "the gateway ended the stream"));
    } catch (error) {
      if (await lost(error)) continue;
    }
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
}

async function stream(event, opened) {
  const abort = new AbortController();
  let alarm = setTimeout(() => abort.abort(), SILENCE_MS);
  try {
    const response = await request("api/v1/events", { signal: abort.signal });
    if (!response.ok) throw await problem(response);
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(alarm);
      alarm = setTimeout(() => abort.abort(), SILENCE_MS);
      held += value;
      const events = held.split("\n\n");
      held = events.pop();
      for (const one of events) {
        const data = one.split("\n").find((line) => line.startsWith("data: "));
        if (data) event(JSON.parse(data.slice(6)));
      }
    }
  } finally {
    clearTimeout(alarm);
    abort.abort();
  }
}
