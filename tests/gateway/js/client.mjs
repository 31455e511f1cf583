// The official JavaScript client against a gateway. Prints what it saw as one JSON object.
import OpenAI from 'openai';

const client = new OpenAI({
  baseURL: process.env.GATEWAY_URL,
  apiKey: process.env.GATEWAY_KEY,
  maxRetries: 0,
});
const seen = {};

const models = [];
for await (const model of client.models.list()) models.push(model.id);
seen.models = models;

const made = await client.responses.create({ model: 'tools', input: 'hi' });
seen.created = [made.status, made.output_text];
seen.retrieved = (await client.responses.retrieve(made.id)).output_text;

const streamed = [];
for await (const event of await client.responses.create({
  model: 'slow',
  input: 'one two three',
  stream: true,
})) {
  streamed.push(event);
}
seen.streamed = {
  numbers: streamed.map((event) => event.sequence_number),
  last: streamed.at(-1).type,
  text: streamed.map((event) => (event.type === 'response.output_text.delta' ? event.delta : '')).join(''),
};

const helper = client.responses.stream({ model: 'slow', input: 'four five' });
seen.helper = (await helper.finalResponse()).output_text;

const first = [];
let id;
const background = await client.responses.create({
  model: 'slow',
  input: 'one two three four five six',
  background: true,
  stream: true,
});
for await (const event of background) {
  first.push(event);
  id ??= event.response.id;
  if (event.type === 'response.output_text.delta') break;
}
const rest = await client.responses.retrieve(id, {
  stream: true,
  starting_after: first.at(-1).sequence_number,
});
for await (const event of rest) first.push(event);
seen.resumed = {
  numbers: first.map((event) => event.sequence_number),
  last: first.at(-1).type,
};

const napping = await client.responses.create({
  model: 'tools',
  input: '/nap {"seconds": 60}',
  background: true,
});
seen.cancelled = (await client.responses.cancel(napping.id)).status;

const conversation = await client.conversations.create({ metadata: { topic: 'colours' } });
await client.responses.create({ model: 'tools', input: 'red', conversation: conversation.id });
const recalled = await client.responses.create({
  model: 'tools',
  input: 'What did I say?',
  conversation: conversation.id,
});
seen.recalled = recalled.output_text;
const items = [];
for await (const item of client.conversations.items.list(conversation.id, { limit: 3 })) {
  items.push(item.role);
}
seen.items = items;
seen.deleted = (await client.conversations.delete(conversation.id)).deleted;

const chat = await client.chat.completions.create({
  model: 'tools',
  messages: [{ role: 'user', content: 'hi' }],
});
seen.chat = chat.choices[0].message.content;
let chunks = '';
for await (const chunk of await client.chat.completions.create({
  model: 'slow',
  messages: [{ role: 'user', content: 'one two' }],
  stream: true,
})) {
  chunks += chunk.choices[0]?.delta?.content ?? '';
}
seen.chunks = chunks;

async function refusal(call) {
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.status, error.param, error.code];
  }
  return null;
}
seen.refusals = [
  await refusal(() => client.responses.create({ model: 'nobody', input: 'hi' })),
  await refusal(() => client.responses.create({ model: 'tools', input: 'hi', top_logprobs: 3 })),
  await refusal(() => client.responses.retrieve('resp_none')),
  await refusal(() => client.withOptions({ apiKey: 'ak-none' }).models.list()),
];

console.log(JSON.stringify(seen));
