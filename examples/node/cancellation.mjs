// A generation that somebody cancels: node examples/node/cancellation.mjs model.gguf
//
// cancel.mjs shows the other ways to stop one.

import { Model } from 'mullama'

const model = await Model.load(process.argv[2], { timeoutMs: 0 })

const controller = new AbortController()
setTimeout(() => controller.abort(new Error('Cancelled')), 100)

try {
  const text = await model.generate('Write a very long story', { maxTokens: 5000, ignoreEos: true, signal: controller.signal })
  console.log(text)
} catch (error) {
  // What the signal was aborted with. The native work has stopped.
  if (error !== controller.signal.reason) throw error
  console.log(`operation failed: ${error.message}`)
}
await model.close()
