// The official JavaScript client, as its README and OpenAI's guides use it.
import OpenAI from 'openai';

import { BASE, KEY, add, contains, equal, run } from './kit.mjs';

const client = new OpenAI({ baseURL: BASE, apiKey: KEY });
const parameters = {
  type: 'object',
  properties: { location: { type: 'string' } },
  required: ['location'],
  additionalProperties: false,
};
const weather = { type: 'function', name: 'get_weather', parameters, strict: true };
const weatherChat = { type: 'function', function: { name: 'get_weather', parameters, strict: true } };
const ASKED = 'What is the weather like in Paris today?';
const person = {
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer' } },
  required: ['name', 'age'],
  additionalProperties: false,
};

add('responses_readme', 'quickstart', async () => {
  const response = await client.responses.create({
    model: 'plain',
    instructions: 'You are a coding assistant that talks like a pirate',
    input: 'Are semicolons optional in JavaScript?',
  });
  contains(response.output_text, 'talks like a pirate', 'semicolons');
});

add('responses_quickstart', 'quickstart', async () => {
  const response = await client.responses.create({ model: 'plain', input: 'Write a story.' });
  contains(response.output_text, 'ack: Write a story.');
});

add('responses_streaming', 'streaming', async () => {
  const stream = await client.responses.create({ model: 'plain', input: 'hello there', stream: true });
  let text = '';
  let last;
  for await (const event of stream) {
    if (event.type === 'response.output_text.delta') text += event.delta;
    last = event.type;
  }
  contains(text, 'hello there');
  equal(last, 'response.completed');
});

add('responses_stream_helper', 'streaming', async () => {
  const stream = client.responses.stream({ model: 'plain', input: 'hello there' });
  contains((await stream.finalResponse()).output_text, 'hello there');
});

add('responses_multi_turn', 'multi-turn', async () => {
  const first = await client.responses.create({ model: 'plain', input: 'hi' });
  const second = await client.responses.create({
    model: 'plain',
    input: [{ role: 'user', content: 'hi' }, ...first.output, { role: 'user', content: 'more' }],
  });
  contains(second.output_text, 'users=2');
});

add('responses_previous', 'multi-turn', async () => {
  const first = await client.responses.create({ model: 'plain', input: 'hi' });
  const second = await client.responses.create({
    model: 'plain',
    input: 'more',
    previous_response_id: first.id,
  });
  contains(second.output_text, 'users=2');
});

add('responses_conversation', 'multi-turn', async () => {
  const conversation = await client.conversations.create({ metadata: { topic: 'demo' } });
  await client.responses.create({ model: 'plain', input: 'one', conversation: conversation.id });
  const second = await client.responses.create({
    model: 'plain',
    input: 'two',
    conversation: conversation.id,
  });
  contains(second.output_text, 'users=2');
});

add('responses_with_the_agents_tool', 'multi-turn', async () => {
  const first = await client.responses.create({ model: 'tools', input: 'order status of 7?' });
  contains(first.output_text, 'order 7 is on its way');
  const input = [{ role: 'user', content: 'x' }, ...first.output, { role: 'user', content: 'y' }];
  contains((await client.responses.create({ model: 'tools', input })).output_text, 'users=2');
});

add('responses_function_calling', 'tools', async () => {
  const input = [{ role: 'user', content: ASKED }];
  const first = await client.responses.create({ model: 'plain', tools: [weather], input });
  input.push(...first.output);
  const [call] = first.output.filter((item) => item.type === 'function_call');
  equal(JSON.parse(call.arguments), { location: 'Paris' });
  input.push({ type: 'function_call_output', call_id: call.call_id, output: '14 degrees' });
  const second = await client.responses.create({ model: 'plain', tools: [weather], input });
  contains(second.output_text, '14 degrees');
});

add('responses_function_calling_streamed', 'tools', async () => {
  const stream = await client.responses.create({
    model: 'plain',
    tools: [weather],
    input: ASKED,
    stream: true,
  });
  let text = '';
  for await (const event of stream) {
    if (event.type === 'response.function_call_arguments.delta') text += event.delta;
  }
  equal(JSON.parse(text), { location: 'Paris' });
});

add('responses_structured', 'structured output', async () => {
  const response = await client.responses.create({
    model: 'plain',
    input: 'He is called Jason and is 25.',
    text: { format: { type: 'json_schema', name: 'person', strict: true, schema: person } },
  });
  equal(JSON.parse(response.output_text), { name: 'Jason', age: 25 });
});

add('responses_approval', 'approval', async () => {
  const first = await client.responses.create({ model: 'approval', input: 'refund order 7' });
  const [request] = first.output.filter((item) => item.type === 'mcp_approval_request');
  const second = await client.responses.create({
    model: 'approval',
    previous_response_id: first.id,
    input: [{ type: 'mcp_approval_response', approval_request_id: request.id, approve: true }],
  });
  contains(second.output_text, 'refunded');
});

add('responses_parameters', 'parameters', async () => {
  const response = await client.responses.create({
    model: 'plain',
    input: 'hi',
    temperature: 0.2,
    reasoning: { effort: 'low' },
    store: false,
    include: ['reasoning.encrypted_content'],
  });
  contains(response.output_text, 'temperature=0.2', 'reasoning_effort=low');
});

add('responses_retrieved', 'objects', async () => {
  const made = await client.responses.create({ model: 'plain', input: 'hi' });
  equal((await client.responses.retrieve(made.id)).output_text, made.output_text);
  await client.responses.delete(made.id);
});

add('models', 'objects', async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  equal(names.includes('plain'), true);
});

add('chat_readme', 'quickstart', async () => {
  const completion = await client.chat.completions.create({
    model: 'plain',
    messages: [
      { role: 'developer', content: 'Talk like a pirate.' },
      { role: 'user', content: 'Are semicolons optional in JavaScript?' },
    ],
  });
  contains(completion.choices[0].message.content, 'Talk like a pirate.', 'semicolons');
});

add('chat_streaming', 'streaming', async () => {
  const stream = await client.chat.completions.create({
    model: 'plain',
    messages: [{ role: 'user', content: 'Say this is a test' }],
    stream: true,
  });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
  contains(text, 'Say this is a test');
});

add('chat_function_calling', 'tools', async () => {
  const messages = [{ role: 'user', content: ASKED }];
  const first = await client.chat.completions.create({ model: 'plain', messages, tools: [weatherChat] });
  const { message } = first.choices[0];
  messages.push(message, {
    role: 'tool',
    tool_call_id: message.tool_calls[0].id,
    content: '14 degrees',
  });
  const second = await client.chat.completions.create({ model: 'plain', messages, tools: [weatherChat] });
  contains(second.choices[0].message.content, '14 degrees');
});

add('chat_run_tools', 'tools', async () => {
  const runner = client.chat.completions.runTools({
    model: 'plain',
    messages: [{ role: 'user', content: ASKED }],
    tools: [
      {
        type: 'function',
        function: {
          name: 'get_weather',
          function: ({ location }) => `14 degrees in ${location}`,
          parse: JSON.parse,
          parameters,
        },
      },
    ],
  });
  contains(await runner.finalContent(), '14 degrees in Paris');
});

add('chat_structured', 'structured output', async () => {
  const completion = await client.chat.completions.parse({
    model: 'plain',
    messages: [
      { role: 'system', content: 'Extract the person.' },
      { role: 'user', content: 'He is called Jason and is 25.' },
    ],
    response_format: {
      type: 'json_schema',
      json_schema: { name: 'person', strict: true, schema: person },
    },
  });
  equal(completion.choices[0].message.parsed ?? JSON.parse(completion.choices[0].message.content), {
    name: 'Jason',
    age: 25,
  });
});

add('unknown_model', 'errors', async () => {
  try {
    await client.responses.create({ model: 'nobody', input: 'hi' });
  } catch (error) {
    equal([error.status, error.code], [404, 'model_not_found']);
    return;
  }
  throw new Error('an unknown model was accepted');
});

await run();
