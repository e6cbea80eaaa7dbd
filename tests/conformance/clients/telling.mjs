// What the programs of the clients for Node.js share: what they are told, and how they tell what they saw; as
// telling.py, whose comments say more.

import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export const stage = JSON.parse((await lines.next()).value);
export const messages = [{ role: "user", content: stage.question }];

/** Each scenario with each backend. One that fails does not keep the others from being tried. */
export async function perform(...scenarios) {
  for (const [backend, models] of Object.entries(stage.backends)) {
    for (const scenario of scenarios) {
      let report;
      try {
        report = await scenario(models);
      } catch (error) {
        report = { failed: String(error?.stack ?? error) };
      }
      console.log(JSON.stringify({ backend, scenario: scenario.name, report }));
      await lines.next();
    }
  }
  process.exit(0);
}

/** How the client puts it when it is refused: asked up to three times, for what only a limit refuses. */
export async function refusal(ask) {
  for (let i = 0; i < 3; i++) {
    try {
      await ask();
    } catch (error) {
      return refusedBy(error);
    }
  }
  return { raised: null };
}

function refusedBy(error) {
  return {
    raised: error.constructor.name,
    status: error.status ?? error.statusCode ?? error.status_code ?? error.cause?.status_code ?? null,
    says: error.message,
  };
}

/** A text that came streamed, from an iterable of its pieces. */
export async function read(pieces) {
  const found = [];
  for await (const piece of pieces) {
    if (piece) found.push(piece);
  }
  return { text: found.join(""), in_pieces: found.length > 10 };
}

/** Read a few pieces of a stream, as a caller does who then leaves. */
export async function begin(pieces) {
  const iterator = pieces[Symbol.asyncIterator]();
  for (let i = 0; i < 3; i++) await iterator.next();
}
