// Loom from JavaScript, with nothing but @nats-io/transport-node: submit a job, watch it, signal
// it, stop it.
//
//     npm ci
//     LOOM_BUS=nats://127.0.0.1:4222 node loom_client.mjs
//
// A bus with TLS and credentials: LOOM_TLS_CA names its authority, LOOM_CREDS a credentials file.

import { readFileSync } from "node:fs";
import { checkServerIdentity } from "node:tls";
import { connect, credsAuthenticator } from "@nats-io/transport-node";

const JOB = {
  name: `javascript-${process.pid}`,
  bash: "trap 'echo got the signal' USR1; echo ready; while true; do sleep 0.1; done",
};
const PATIENCE = 30_000;

/** Loom said no: `code` says why in a word, `message` in a sentence. */
class Refused extends Error {
  constructor({ code, message }) {
    super(message);
    this.code = code;
  }
}

/**
 * Whether a certificate is of one of the servers. The library does not tell TLS the name of a server
 * that is known by its address, and TLS would take it for "localhost".
 */
function isOneOf(servers) {
  const hosts = servers.map((server) => new URL(server).hostname.replace(/[[\]]/g, ""));
  return (_, certificate) => {
    const errors = hosts.map((host) => checkServerIdentity(host, certificate));
    return errors.includes(undefined) ? undefined : errors[0];
  };
}

function open() {
  const { LOOM_BUS = "nats://127.0.0.1:4222", LOOM_TLS_CA, LOOM_CREDS } = process.env;
  const servers = LOOM_BUS.split(",");
  const options = { name: "javascript example", servers };
  if (LOOM_TLS_CA) {
    options.tls = { caFile: LOOM_TLS_CA, checkServerIdentity: isOneOf(servers) };
  }
  if (LOOM_CREDS) options.authenticator = credsAuthenticator(readFileSync(LOOM_CREDS));
  return connect(options);
}

/** One request and its answer; JSON both ways, or one bare word where that is enough. */
async function ask(bus, subject, payload = "") {
  const text = typeof payload === "string" ? payload : JSON.stringify(payload);
  const answer = await bus.request(subject, text, { timeout: PATIENCE });
  const body = answer.json();
  if (answer.headers?.has("Nats-Service-Error-Code")) throw new Refused(body);
  return body;
}

/** A command to one task: its row, unless the task could not do it. */
async function command(bus, subject, word = "") {
  const [row] = (await ask(bus, subject, word)).rows;
  if (row.error) throw new Refused(row.error);
  return row;
}

/** Reads messages until one is the one waited for, and prints their subjects. */
async function until(messages, isIt) {
  const late = Symbol("late");
  const clock = new Promise((resolve) => setTimeout(resolve, PATIENCE, late).unref());
  for (;;) {
    const next = await Promise.race([messages.next(), clock]);
    if (next === late || next.done) throw new Error("what was waited for never came");
    console.log(`  ${next.value.subject}`);
    if (isIt(next.value)) return next.value;
  }
}

/** What is published on a subject, one message after the other. */
const listen = (bus, subject) => bus.subscribe(subject)[Symbol.asyncIterator]();

const bus = await open();
const job = JOB.name;
// First listen, then do: nothing can be missed in between.
const events = listen(bus, "orch.events.>");
const output = listen(bus, `orch.logs.${job}.>`);
await bus.flush();

const accepted = await ask(bus, "orch.job.submit", JOB);
console.log(`submitted ${job}: ${accepted.outcome}, version ${accepted.version}`);
const running = `orch.events.task.${job}.main.0.running`;
await until(events, (message) => message.subject === running);
// It runs, but only the task itself knows when it is ready to be signalled.
await until(output, (message) => message.string().includes("ready"));

// Straight to the task: no manager is on the way. The answer has a row for each task.
const task = `orch.task.${job}.main.0`;
const inspected = await command(bus, `${task}.inspect`);
console.log(`inspect: run ${inspected.run} on ${inspected.node}, pid ${inspected.value.pid}`);
const signalled = await command(bus, `${task}.signal`, "USR1");
console.log(`signal: sent to ${job}/${signalled.slot.index} on ${signalled.node}`);
const line = await until(output, (m) => m.string().includes("got the signal"));
console.log(`output: ${line.string().trim()}`);
for (const verb of ["pause", "resume"]) {
  const row = await command(bus, `${task}.${verb}`);
  console.log(`${verb}: done in ${row.took_us} us`);
}

try {
  await ask(bus, "orch.job.submit", { name: job, bahs: "true" });
} catch (no) {
  if (!(no instanceof Refused)) throw no;
  console.log(`refused as ${no.code}: ${no.message}`);
}

await ask(bus, "orch.job.stop", { address: { job }, reason: "it is over" });
const killed = `orch.events.job.${job}.killed`;
const event = await until(events, (message) => message.subject === killed);
console.log(`stopped: ${event.json().reason}`);
await bus.close();
