// LangChain.js with ChatOpenAI, as its documentation uses it.
import { AIMessage, HumanMessage, SystemMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { createAgent } from 'langchain';
import { z } from 'zod';

import { BASE, KEY, add, contains, equal, run } from './kit.mjs';

const model = (name, options = {}) =>
  new ChatOpenAI({ model: name, apiKey: KEY, configuration: { baseURL: BASE }, ...options });
const getWeather = tool(({ location }) => `It is sunny in ${location}.`, {
  name: 'get_weather',
  description: 'Get the weather in a location',
  schema: z.object({ location: z.string() }),
});
const person = z.object({ name: z.string(), age: z.number().int() });

for (const [kind, options] of [
  ['chat', {}],
  ['responses', { useResponsesApi: true }],
]) {
  const made = (name = 'plain', more = {}) => model(name, { ...options, ...more });

  add(`${kind}_invoke`, 'quickstart', async () => {
    contains((await made().invoke('Hello!')).text, 'ack: Hello!');
  });

  add(`${kind}_with_system`, 'instructions', async () => {
    const answer = await made().invoke([
      new SystemMessage('You are a translator.'),
      new HumanMessage('I love programming.'),
    ]);
    contains(answer.text, 'You are a translator.');
  });

  add(`${kind}_stream`, 'streaming', async () => {
    let text = '';
    for await (const part of await made().stream('Hello there')) text += part.text;
    contains(text, 'ack: Hello there');
  });

  add(`${kind}_multi_turn`, 'multi-turn', async () => {
    const first = await made().invoke([new HumanMessage('hi')]);
    const answer = await made().invoke([new HumanMessage('hi'), first, new HumanMessage('more')]);
    contains(answer.text, 'users=2');
  });

  add(`${kind}_made_by_hand`, 'multi-turn', async () => {
    const answer = await made().invoke([
      new HumanMessage('hi'),
      new AIMessage('hello'),
      new HumanMessage('more'),
    ]);
    contains(answer.text, 'users=2');
  });

  add(`${kind}_bind_tools`, 'tools', async () => {
    const bound = made().bindTools([getWeather]);
    const history = [new HumanMessage('What is the weather in Paris?')];
    const answer = await bound.invoke(history);
    history.push(answer, await getWeather.invoke(answer.tool_calls[0]));
    contains((await bound.invoke(history)).text, 'sunny in Paris');
  });

  add(`${kind}_agent`, 'tools', async () => {
    const agent = createAgent({ model: made(), tools: [getWeather] });
    const result = await agent.invoke({
      messages: [{ role: 'user', content: 'What is the weather in Paris?' }],
    });
    contains(result.messages.at(-1).text, 'sunny in Paris');
  });

  add(`${kind}_structured`, 'structured output', async () => {
    const answer = await made().withStructuredOutput(person).invoke('He is called Jason and is 25.');
    equal(answer, { name: 'Jason', age: 25 });
  });

  add(`${kind}_temperature`, 'parameters', async () => {
    contains((await made('plain', { temperature: 0.2 }).invoke('hi')).text, 'temperature=0.2');
  });
}

await run();
