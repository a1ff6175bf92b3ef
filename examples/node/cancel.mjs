// Three ways to stop a generation: node examples/node/cancel.mjs model.gguf
//
// Each ends the native work within one step, whether the request waits in the
// queue, reads its prompt or generates.

import { Model, MullamaError } from 'mullama'

const model = await Model.load(process.argv[2])
const prompt = 'Once upon a time'
const endless = { maxTokens: 1000, ignoreEos: true }

// 1. Leave the loop.
let count = 0
for await (const _ of model.generateStream(prompt, endless)) if (++count === 5) break
console.log(`left after ${count} tokens`)

// 2. An AbortSignal: the promise rejects with the signal's reason.
const controller = new AbortController()
const story = model.generate(prompt, { ...endless, signal: controller.signal })
setTimeout(() => controller.abort(new Error('the user went away')), 100)
await story.catch((error) => console.log(`aborted: ${error.message}`))

// 3. A time limit: the error carries the text so far.
try {
  await model.generate(prompt, { ...endless, timeoutMs: 500 })
} catch (error) {
  if (!(error instanceof MullamaError) || error.code !== 'timeout') throw error
  console.log(`timed out after ${error.afterMs} ms with ${error.partial.length} characters`)
}
await model.close()
