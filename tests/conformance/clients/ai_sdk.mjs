// The Vercel AI SDK with the provider that is named on the command line.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, isStepCount, jsonSchema, streamText, tool } from "ai";
import { createOllama } from "ai-sdk-ollama";
import { z } from "zod";

import { begin, perform, read, refusal, stage } from "./telling.mjs";

// A provider with a key, and with the address below which it calls where that is not the gateway's own.
const PROVIDERS = {
  // Calls /v1/responses.
  openai: (apiKey, baseURL = `${stage.url}/v1`) => createOpenAI({ apiKey, baseURL }),
  "openai-compatible": (apiKey, baseURL = `${stage.url}/v1`) =>
    createOpenAICompatible({ name: "gateway", apiKey, baseURL, supportsStructuredOutputs: true }),
  anthropic: (apiKey, baseURL = `${stage.url}/v1`) => createAnthropic({ apiKey, baseURL }),
  ollama: (apiKey, baseURL = stage.url) =>
    createOllama({ baseURL, headers: { Authorization: `Bearer ${apiKey}` } }),
};
const providerWith = PROVIDERS[process.argv[2]];
const provider = providerWith(stage.key);
// Whoever asks once sees what the gateway says, and not what became of it after the SDK had asked three times.
const asked = { prompt: stage.question, maxRetries: 0 };
const { name, description, parameters } = stage.tool.function;

async function chat({ chat: model }) {
  return { text: (await generateText({ ...asked, model: provider(model) })).text };
}

async function stream({ chat: model }) {
  return read(streamText({ ...asked, model: provider(model) }).textStream);
}

/** The SDK itself answers the call, and asks again. */
function toolLoop(model) {
  const called = [];
  const execute = async (input) => {
    called.push(name, input);
    return "sunny";
  };
  const tools = { [name]: tool({ description, inputSchema: jsonSchema(parameters), execute }) };
  return { called, loop: { ...asked, model: provider(model), tools, stopWhen: isStepCount(2) } };
}

async function tools({ chat: model }) {
  const { called, loop } = toolLoop(model);
  const { text } = await generateText(loop);
  return { called, text };
}

async function tools_streamed({ chat: model }) {
  const { called, loop } = toolLoop(model);
  const { text } = await read(streamText(loop).textStream);
  return { called, text };
}

async function structured({ chat: model }) {
  const output = Output.object({ schema: z.object({ says: z.string(), sure: z.boolean() }) });
  return (await generateText({ ...asked, model: provider(model), output })).output;
}

async function embeddings({ embedding }) {
  const model = provider.embeddingModel(embedding);
  return { vectors: (await embedMany({ model, values: stage.texts })).embeddings };
}

async function errors({ chat: model }) {
  const ask = (other, called = model) => generateText({ ...asked, model: other(called) });
  return {
    "wrong key": await refusal(() => ask(providerWith("wrong"))),
    "unknown model": await refusal(() => ask(provider, "nope")),
    "over limit": await refusal(() => ask(providerWith(stage.limited_key))),
    // Whatever is called below it: the SDK has no call of its own for what changes models.
    blocked: await refusal(() => ask(providerWith(stage.key, `${stage.url}/api/blobs`))),
  };
}

async function leave({ endless: model }) {
  const leaving = new AbortController();
  const { textStream } = streamText({ ...asked, model: provider(model), abortSignal: leaving.signal });
  await begin(textStream);
  leaving.abort();
  return {};
}

// Anthropic has no embeddings. Of Ollama's provider no signal reaches the client that it is built on: it can't leave.
const own = { anthropic: [leave], ollama: [embeddings] }[process.argv[2]] ?? [embeddings, leave];
await perform(chat, stream, tools, tools_streamed, structured, errors, ...own);
