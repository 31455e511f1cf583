// Runs the cases of one JavaScript client. Each prints one JSON line, as kit.py's do.
export const BASE = process.env.GATEWAY_URL;
export const KEY = process.env.GATEWAY_KEY;
const LIMIT = Number(process.env.CASE_LIMIT ?? 60) * 1000;
const cases = [];

export function add(name, feature, body) {
  cases.push({ name, feature, body });
}

export function contains(text, ...parts) {
  for (const part of parts) {
    if (!String(text).includes(part)) throw new Error(`${part} is missing in ${String(text).slice(0, 400)}`);
  }
}

export function equal(found, wanted) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${a} instead of ${b}`);
}

export async function run() {
  const wanted = new Set(process.argv.slice(2));
  // Frameworks print as they like; the report keeps standard output for itself.
  console.log = console.error;
  for (const { name, feature, body } of cases) {
    if (wanted.size && !wanted.has(name)) continue;
    const began = Date.now();
    let error = null;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no end within ${LIMIT / 1000} s`)), LIMIT);
    });
    try {
      await Promise.race([body(), late]);
    } catch (raised) {
      console.error(`--- ${name}`, raised);
      error = `${raised?.name}: ${raised?.message}`.slice(0, 600);
    } finally {
      clearTimeout(timer);
    }
    const line = { case: name, feature, error, seconds: (Date.now() - began) / 1000 };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  }
  process.exit(0);
}
