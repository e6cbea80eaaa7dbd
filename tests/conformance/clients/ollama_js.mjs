// Ollama's client for JavaScript.

import { Ollama } from "ollama";
import { z } from "zod";

import { begin, messages, perform, read, refusal, stage } from "./telling.mjs";

const client = clientWith(stage.key);
const Answer = z.object({ says: z.string(), sure: z.boolean() });

function clientWith(key) {
  return new Ollama({ host: stage.url, headers: { Authorization: `Bearer ${key}` } });
}

async function chat({ chat: model }) {
  return { text: (await client.chat({ model, messages })).message.content };
}

async function stream({ chat: model }) {
  const frames = await client.chat({ model, messages, stream: true });
  async function* pieces() {
    for await (const frame of frames) yield frame.message.content;
  }
  return read(pieces());
}

async function tools({ chat: model }) {
  const asked = { model, messages, tools: [stage.tool] };
  return goOn(asked, (await client.chat(asked)).message);
}

async function tools_streamed({ chat: model }) {
  const asked = { model, messages, tools: [stage.tool] };
  const found = [];
  for await (const frame of await client.chat({ ...asked, stream: true })) {
    if (frame.message.tool_calls) found.push(frame.message);
  }
  return goOn(asked, found[0]);
}

/** Answer the call, and read what is said then. */
async function goOn(asked, message) {
  const [{ function: called }] = message.tool_calls;
  const result = { role: "tool", content: "sunny", tool_name: called.name };
  const last = await client.chat({ ...asked, messages: [...messages, message, result] });
  return { called: [called.name, called.arguments], text: last.message.content };
}

async function structured({ chat: model }) {
  const answer = await client.chat({ model, messages, format: z.toJSONSchema(Answer) });
  return Answer.parse(JSON.parse(answer.message.content));
}

async function embeddings({ embedding: model }) {
  return { vectors: (await client.embed({ model, input: stage.texts })).embeddings };
}

async function embeddings_one_by_one({ embedding: model }) {
  const vectors = [];
  for (const prompt of stage.texts) vectors.push((await client.embeddings({ model, prompt })).embedding);
  return { vectors };
}

async function completion({ chat: model }) {
  return { text: (await client.generate({ model, prompt: stage.question })).response };
}

async function completion_streamed({ chat: model }) {
  const frames = await client.generate({ model, prompt: stage.question, stream: true });
  async function* pieces() {
    for await (const frame of frames) yield frame.response;
  }
  return read(pieces());
}

async function listed({ chat: model }) {
  await client.ps();
  const { models } = await client.list();
  return {
    listed: models.some((one) => one.model === `${model}:latest`),
    retrieved: Object.keys((await client.show({ model })).model_info).length > 0,
  };
}

async function errors({ chat: model }) {
  const ask = (other, name = model) => other.chat({ model: name, messages });
  return {
    "wrong key": await refusal(() => ask(clientWith("wrong"))),
    "unknown model": await refusal(() => ask(client, "nope")),
    "over limit": await refusal(() => ask(clientWith(stage.limited_key))),
    blocked: await refusal(() => client.pull({ model })),
  };
}

async function leave({ endless: model }) {
  const frames = await client.chat({ model, messages, stream: true });
  await begin(frames);
  frames.abort();
  return {};
}

await perform(
  chat,
  stream,
  tools,
  tools_streamed,
  structured,
  embeddings,
  embeddings_one_by_one,
  completion,
  completion_streamed,
  listed,
  errors,
  leave,
);
