// Measures the Node package: K requests of 64 tokens at once from one event
// loop, and the loop's lag meanwhile.
//
//     node bench/requests.mjs MODEL.gguf [K ...]
//
// Prints one JSON object for each K: generated tokens a second over the whole
// time, prefill included, and the lag of a 10 ms timer in milliseconds.

import { Model } from 'mullama'

const TOKENS = 64
const TICK = 10
const TOPICS = (
  'rust,python,the sea,a cat,mountains,a castle,coffee,music,' +
  'trains,winter,robots,gardens,stars,a river,bread,chess'
).split(',')

const round = (value, digits) => Number(value.toFixed(digits))

/** Notes by how many milliseconds each tick of a timer comes late. */
function watchLag(lags) {
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    lags.push(Math.max(0, now - last - TICK))
    last = now
  }, TICK)
  return () => clearInterval(timer)
}

async function measure(model, k) {
  const prompts = TOPICS.slice(0, k).map((topic) => `Write a long and detailed story about ${topic}. Once upon a time`)
  const lags = []
  const stop = watchLag(lags)
  const start = performance.now()
  const options = { maxTokens: TOKENS, temperature: 0, ignoreEos: true }
  const answers = await Promise.all(prompts.map((prompt) => model.generateWith(prompt, options)))
  const elapsed = (performance.now() - start) / 1e3
  stop()
  lags.sort((a, b) => a - b)
  return {
    system: 'mullama (Node)',
    at_once: k,
    tokens_per_second: round(answers.reduce((sum, a) => sum + a.usage.completionTokens, 0) / elapsed, 1),
    prompt_tokens: answers.reduce((sum, a) => sum + a.usage.promptTokens, 0) / k,
    lag_p99_ms: round(lags[Math.floor(0.99 * (lags.length - 1))], 2),
    lag_max_ms: round(lags.at(-1), 2),
  }
}

const [path, ...counts] = process.argv.slice(2)
const model = await Model.load(path, { maxConcurrent: 16, timeoutMs: 0 })
await model.generate('warm up', 8)
for (const k of counts.length > 0 ? counts.map(Number) : [1, 4, 16]) {
  console.log(JSON.stringify(await measure(model, k)))
}
await model.close()
