// Starts mock-llm and tyr through ../processes.py; ends them with standard input.

import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const launcher = join(dirname(fileURLToPath(import.meta.url)), "..", "processes.py");

/** One tyr in front of one mock; `end()` must be called. */
export async function startStack() {
  const child = spawn("python", [launcher], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done) throw new Error("the processes did not start");
  const facts = JSON.parse(first.value);
  return {
    ...facts,
    /** All usage records, oldest first. */
    async records() {
      child.stdin.write("records\n");
      return JSON.parse((await lines.next()).value);
    },
    async stats() {
      return (await fetch(`${facts.mock}/mock/stats`)).json();
    },
    async end() {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.stdin.end();
      await ended;
    },
  };
}

/** Polls until `condition` gives something true, and returns that. */
export async function eventually(what, condition, seconds = 15) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A fetch that counts what the SDK really sends. */
export function countingFetch() {
  const counting = async (...args) => {
    counting.count += 1;
    return fetch(...args);
  };
  counting.count = 0;
  return counting;
}
