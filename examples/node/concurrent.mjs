// Answers several questions at once: node examples/node/concurrent.mjs model.gguf
//
// All requests share one model and are computed together; `maxConcurrent` is
// how many of them, the rest wait their turn.

import { Model } from 'mullama'

const model = await Model.load(process.argv[2], { maxConcurrent: 4 })
const chat = (text) => `<|im_start|>user\n${text}<|im_end|>\n<|im_start|>assistant\n`

const countries = ['France', 'Japan', 'Egypt', 'Peru', 'Norway', 'Kenya']
const answers = await Promise.all(
  countries.map((country) =>
    model.generateWith(chat(`What is the capital of ${country}?`), { maxTokens: 30, temperature: 0 }),
  ),
)
for (const [i, { text, usage, timings }] of answers.entries()) {
  const wait = timings.timeToFirstToken.toFixed(0)
  console.log(`${countries[i]}: ${text.trim()} (${usage.completionTokens} tokens, the first after ${wait} ms)`)
}
await model.close()
