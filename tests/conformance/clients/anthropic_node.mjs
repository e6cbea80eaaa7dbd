// Anthropic's client for Node.js.

import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

import { begin, messages, perform, read, refusal, stage } from "./telling.mjs";

const client = clientWith(stage.key);
const Answer = z.object({ says: z.string(), sure: z.boolean() });
const { name, description, parameters } = stage.tool.function;
const tool = { name, description, input_schema: parameters };

function clientWith(apiKey) {
  return new Anthropic({ baseURL: stage.url, apiKey, maxRetries: 0 });
}

async function chat({ chat: model }) {
  const message = await client.messages.create({ model, messages, max_tokens: 500 });
  return { text: message.content[0].text };
}

async function stream({ chat: model }) {
  const events = client.messages.stream({ model, messages, max_tokens: 500 });
  async function* pieces() {
    for await (const event of events) {
      if (event.type === "content_block_delta") yield event.delta.text;
    }
  }
  return read(pieces());
}

async function tools({ chat: model }) {
  const asked = { model, messages, max_tokens: 500, tools: [tool] };
  return goOn(asked, await client.messages.create(asked));
}

async function tools_streamed({ chat: model }) {
  const asked = { model, messages, max_tokens: 500, tools: [tool] };
  return goOn(asked, await client.messages.stream(asked).finalMessage());
}

/** Answer the call, and read what is said then. */
async function goOn(asked, message) {
  const [call] = message.content.filter((block) => block.type === "tool_use");
  const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
  const told = [
    ...messages,
    { role: "assistant", content: message.content },
    { role: "user", content: [result] },
  ];
  const last = await client.messages.create({ ...asked, messages: told });
  return { called: [call.name, call.input], text: last.content[0].text };
}

async function structured({ chat: model }) {
  const output_config = { format: zodOutputFormat(Answer) };
  const message = await client.messages.parse({ model, messages, max_tokens: 500, output_config });
  return message.parsed_output;
}

async function counted({ chat: model }) {
  const count = await client.messages.countTokens({ model, messages });
  return { tokens: count.input_tokens > 0 };
}

async function errors({ chat: model }) {
  const ask = (other, name = model) => other.messages.create({ model: name, messages, max_tokens: 500 });
  return {
    "wrong key": await refusal(() => ask(clientWith("wrong"))),
    "unknown model": await refusal(() => ask(client, "nope")),
    "over limit": await refusal(() => ask(clientWith(stage.limited_key))),
    blocked: await refusal(() => client.post("/api/pull", { body: {} })),
  };
}

async function leave({ endless: model }) {
  const events = client.messages.stream({ model, messages, max_tokens: 9000 });
  await begin(events);
  events.abort();
  return {};
}

await perform(chat, stream, tools, tools_streamed, structured, counted, errors, leave);
