// OpenAI's client for Node.js: chat, completions, embeddings, responses.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { begin, messages, perform, read, refusal, stage } from "./telling.mjs";

const client = clientWith(stage.key);
const Answer = z.object({ says: z.string(), sure: z.boolean() });
const flatTool = { type: "function", ...stage.tool.function };

function clientWith(apiKey, baseURL = `${stage.url}/v1`) {
  return new OpenAI({ baseURL, apiKey, maxRetries: 0 });
}

async function chat({ chat: model }) {
  const answer = await client.chat.completions.create({ model, messages });
  return { text: answer.choices[0].message.content };
}

async function stream({ chat: model }) {
  const chunks = await client.chat.completions.create({ model, messages, stream: true });
  async function* pieces() {
    for await (const chunk of chunks) yield chunk.choices[0].delta.content;
  }
  return read(pieces());
}

async function tools({ chat: model }) {
  const asked = { model, messages, tools: [stage.tool] };
  const answer = await client.chat.completions.create(asked);
  return goOn(asked, answer.choices[0].message);
}

async function tools_streamed({ chat: model }) {
  const asked = { model, messages, tools: [stage.tool] };
  const answer = await client.chat.completions.stream(asked).finalChatCompletion();
  return goOn(asked, answer.choices[0].message);
}

/** Answer the call, and read what is said then. */
async function goOn(asked, message) {
  const [call] = message.tool_calls;
  const result = { role: "tool", tool_call_id: call.id, content: "sunny" };
  const last = await client.chat.completions.create({ ...asked, messages: [...messages, message, result] });
  return {
    called: [call.function.name, JSON.parse(call.function.arguments)],
    text: last.choices[0].message.content,
  };
}

async function structured({ chat: model }) {
  const answer = await client.chat.completions.parse({
    model,
    messages,
    response_format: zodResponseFormat(Answer, "answer"),
  });
  return answer.choices[0].message.parsed;
}

/** In base64, which the client asks for unless told otherwise. */
async function embeddings({ embedding: model }) {
  const found = await client.embeddings.create({ model, input: stage.texts });
  return { vectors: found.data.map((item) => Array.from(item.embedding)) };
}

async function completion({ chat: model }) {
  const answer = await client.completions.create({ model, prompt: stage.question });
  return { text: answer.choices[0].text };
}

async function completion_streamed({ chat: model }) {
  const chunks = await client.completions.create({ model, prompt: stage.question, stream: true });
  async function* pieces() {
    for await (const chunk of chunks) yield chunk.choices[0].text;
  }
  return read(pieces());
}

async function responses({ chat: model }) {
  const response = await client.responses.create({ model, input: stage.question });
  return { text: response.output_text };
}

async function responses_streamed({ chat: model }) {
  const events = await client.responses.create({ model, input: stage.question, stream: true });
  async function* pieces() {
    for await (const event of events) if (event.type === "response.output_text.delta") yield event.delta;
  }
  return read(pieces());
}

async function responses_tools({ chat: model }) {
  const response = await client.responses.create({ model, input: stage.question, tools: [flatTool] });
  const [call] = response.output.filter((item) => item.type === "function_call");
  const result = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
  const input = [...messages, ...response.output, result];
  const last = await client.responses.create({ model, input, tools: [flatTool] });
  return { called: [call.name, JSON.parse(call.arguments)], text: last.output_text };
}

async function responses_structured({ chat: model }) {
  const text = { format: zodTextFormat(Answer, "answer") };
  const response = await client.responses.parse({ model, input: stage.question, text });
  return response.output_parsed;
}

async function listed({ chat: model }) {
  const found = [];
  for await (const one of client.models.list()) found.push(one.id);
  const name = `library/${model}`;
  return {
    listed: found.includes(model) || found.includes(`${model}:latest`),
    retrieved: (await client.models.retrieve(name)).id === name,
  };
}

async function errors({ chat: model }) {
  const ask = (other, name = model) => other.chat.completions.create({ model: name, messages });
  return {
    "wrong key": await refusal(() => ask(clientWith("wrong"))),
    "unknown model": await refusal(() => ask(client, "nope")),
    "over limit": await refusal(() => ask(clientWith(stage.limited_key))),
    blocked: await refusal(() => clientWith(stage.key, stage.url).post("/api/pull", { body: {} })),
  };
}

async function leave({ endless: model }) {
  const chunks = await client.chat.completions.create({ model, messages, stream: true });
  await begin(chunks);
  chunks.controller.abort();
  return {};
}

await perform(
  chat,
  stream,
  tools,
  tools_streamed,
  structured,
  embeddings,
  completion,
  completion_streamed,
  responses,
  responses_streamed,
  responses_tools,
  responses_structured,
  listed,
  errors,
  leave,
);
