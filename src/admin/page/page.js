// The page: follows the gateway, shows every service, and asks before it acts.

import { follow, post, setToken } from "./api.js";
import { ServiceView } from "./service.js";

const main = document.getElementById("services");
const connection = document.getElementById("connection");
const notice = document.getElementById("notice");
const views = new Map();
let chartWindow = "10m";
/** Resolves what waits for a token. */
let tokenGiven = null;

function note(text) {
  if (notice.textContent !== text) notice.textContent = text;
}

function connected(text, isLost = false) {
  if (connection.textContent !== text) connection.textContent = text;
  connection.classList.toggle("lost", isLost);
}

// === events ===

function opened() {
  connected("Live");
  for (const view of views.values()) view.load(chartWindow);
}

async function lost(problem) {
  if (problem.status === 401) {
    connected("A token is needed", true);
    const token = await askForToken();
    if (token === null) {
      connected("A token is needed: press “Token …”", true);
      await new Promise((done) => { tokenGiven = done; });
      return true;
    }
    setToken(token);
    return true;
  }
  connected(`Not live, trying again: ${problem.message}`, true);
  return false;
}

function event({ status, points }) {
  connected(status.ready ? "Live" : "Live, draining");
  const names = status.services.map((service) => service.name);
  for (const [name, view] of views) {
    if (!names.includes(name)) {
      view.element.remove();
      views.delete(name);
    }
  }
  for (const service of status.services) {
    let view = views.get(service.name);
    if (!view) {
      view = new ServiceView(service.name, act);
      views.set(service.name, view);
      main.append(view.element);
      view.load(chartWindow);
    }
    view.update(service, points[service.name]);
  }
  const faults = [];
  if (!status.config.last_reload_successful) {
    faults.push("The last reload was refused; the configuration before it serves on.");
  }
  if (status.journal.fault) {
    faults.push(`The journal cannot be written, so nothing rises: ${status.journal.fault}.`);
  }
  if (faults.length > 0 || notice.dataset.isFault) {
    notice.dataset.isFault = faults.length > 0 ? "yes" : "";
    note(faults.join(" "));
  }
}

// === actions ===

/** Whoever waits for a dialog's answer. */
const waiting = new Map();

/** Opens a dialog and resolves with its form's data, or null where it was left. */
function ask(dialog) {
  // Somebody is being asked already.
  if (dialog.open) return Promise.resolve(null);
  // Its event comes after its end: a question that was left a moment ago may still wait for it.
  waiting.get(dialog)?.(null);
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((done) => waiting.set(dialog, done));
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("close", () => {
    if (dialog.open) return;
    const form = dialog.querySelector("form");
    waiting.get(dialog)?.(dialog.returnValue === "do" ? new FormData(form) : null);
    waiting.delete(dialog);
  });
}

// No submit buttons: the Enter key takes a form's first, and would cancel.
for (const button of document.querySelectorAll("button.cancel")) {
  button.addEventListener("click", () => button.closest("dialog").close("cancel"));
}

async function askForToken() {
  const dialog = document.getElementById("token");
  dialog.querySelector("input").value = "";
  const data = await ask(dialog);
  return data?.get("token") ?? null;
}

async function act(view, action, button) {
  const { rollout } = view.status;
  const dialog = document.getElementById("confirm");
  const isWeight = action.word === "weight";
  const maySpeak = action.word === "promote" && rollout.e >= rollout.hold;
  const title = `${action.label.replace(" …", "")}: ${view.name}`;
  document.getElementById("confirm-title").textContent = `${title}?`;
  document.getElementById("confirm-text").textContent =
    `${rollout.version ?? "The canary"} is ${rollout.phase.replace("_", " ")} at ${rollout.weight} %. ${action.text}`;
  document.getElementById("confirm-do").textContent = action.label.replace(" …", "");
  document.getElementById("confirm-weight").hidden = !isWeight;
  document.getElementById("confirm-force").hidden = !maySpeak;
  const weight = dialog.querySelector("[name=weight]");
  weight.required = isWeight;
  weight.value = isWeight ? rollout.weight : "";
  dialog.querySelector("[name=force]").checked = false;
  const data = await ask(dialog);
  button.focus();
  if (!data) return;
  const body = { actor: "page" };
  if (isWeight) body.weight = Number(data.get("weight"));
  if (maySpeak && data.get("force")) body.force = true;
  await give(`${view.path}/${action.word}`, body, title);
}

/** Gives a command, with a token that may act where one is needed. */
async function give(path, body, title) {
  note("");
  try {
    const done = await post(path, body);
    note(`${title}: done, ${done.phase.replace("_", " ")} at ${done.weight} %.`);
  } catch (problem) {
    note(`${title}: refused. ${problem.message}.`);
    if (problem.status === 401 || problem.message.includes("may look")) {
      const token = await askForToken();
      if (token === null) return;
      setToken(token);
      await give(path, body, title);
    }
  }
}

// === the head of the page ===

document.getElementById("windows").addEventListener("change", (change) => {
  chartWindow = change.target.value;
  for (const view of views.values()) view.load(chartWindow);
});

document.getElementById("token-open").addEventListener("click", async () => {
  const token = await askForToken();
  if (token !== null) {
    setToken(token);
    note("");
    tokenGiven?.();
    tokenGiven = null;
  }
});

follow({ event, opened, lost });
