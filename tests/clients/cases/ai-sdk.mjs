// The AI SDK with its three providers for OpenAI's API, as its documentation uses them.
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateObject, generateText, isStepCount, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

import { BASE, KEY, add, contains, equal, run } from './kit.mjs';

const openai = createOpenAI({ baseURL: BASE, apiKey: KEY });
const compatible = createOpenAICompatible({
  name: 'gateway',
  baseURL: BASE,
  apiKey: KEY,
  supportsStructuredOutputs: true,
});
const steps = stepCountIs ?? isStepCount;
const providers = {
  responses: (name) => openai(name),
  chat: (name) => openai.chat(name),
  compatible: (name) => compatible(name),
};
const weather = tool({
  description: 'Get the weather in a location',
  inputSchema: z.object({ location: z.string().describe('The location') }),
  execute: async ({ location }) => ({ location, temperature: 72 }),
});
const person = z.object({ name: z.string(), age: z.number().int() });

for (const [kind, model] of Object.entries(providers)) {
  add(`${kind}_generate_text`, 'quickstart', async () => {
    const { text } = await generateText({ model: model('plain'), prompt: 'What is love?' });
    contains(text, 'ack: What is love?');
  });

  add(`${kind}_with_system`, 'instructions', async () => {
    const { text } = await generateText({
      model: model('plain'),
      system: 'You are a professional writer.',
      prompt: 'Summarize it.',
    });
    contains(text, 'You are a professional writer.');
  });

  add(`${kind}_stream_text`, 'streaming', async () => {
    const { textStream } = streamText({ model: model('plain'), prompt: 'hello there' });
    let text = '';
    for await (const part of textStream) text += part;
    contains(text, 'ack: hello there');
  });

  add(`${kind}_second_turn`, 'multi-turn', async () => {
    const messages = [{ role: 'user', content: 'hi' }];
    const first = await generateText({ model: model('plain'), messages });
    messages.push(...first.response.messages, { role: 'user', content: 'more' });
    contains((await generateText({ model: model('plain'), messages })).text, 'users=2');
  });

  add(`${kind}_tools`, 'tools', async () => {
    const { text } = await generateText({
      model: model('plain'),
      tools: { weather },
      stopWhen: steps(5),
      prompt: 'What is the weather in Paris?',
    });
    contains(text, 'The tool said', '72');
  });

  add(`${kind}_tools_streamed`, 'tools', async () => {
    const result = streamText({
      model: model('plain'),
      tools: { weather },
      stopWhen: steps(5),
      prompt: 'What is the weather in Paris?',
    });
    let text = '';
    for await (const part of result.textStream) text += part;
    contains(text, 'The tool said', '72');
  });

  add(`${kind}_output_object`, 'structured output', async () => {
    const result = await generateText({
      model: model('plain'),
      output: Output.object({ schema: person }),
      prompt: 'He is called Jason and is 25.',
    });
    equal(result.output, { name: 'Jason', age: 25 });
  });

  add(`${kind}_settings`, 'parameters', async () => {
    const { text } = await generateText({
      model: model('plain'),
      temperature: 0.3,
      maxOutputTokens: 512,
      prompt: 'hi',
    });
    contains(text, 'temperature=0.3');
  });
}

if (generateObject) {
  add('responses_generate_object', 'structured output', async () => {
    const { object } = await generateObject({
      model: openai('plain'),
      schema: person,
      prompt: 'He is called Jason and is 25.',
    });
    equal(object, { name: 'Jason', age: 25 });
  });
}

add('responses_previous_response', 'multi-turn', async () => {
  const first = await generateText({ model: openai('plain'), prompt: 'hi' });
  const second = await generateText({
    model: openai('plain'),
    prompt: 'more',
    providerOptions: {
      openai: { previousResponseId: first.providerMetadata.openai.responseId },
    },
  });
  contains(second.text, 'users=2');
});

await run();
