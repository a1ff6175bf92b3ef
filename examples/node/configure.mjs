// Every setting that most programs need: node examples/node/configure.mjs model.gguf
//
// docs/options.md has all of them.

import { Model } from 'mullama'

const model = await Model.load(process.argv[2], {
  gpuLayers: 0, // layers on a GPU: -1 is all of them
  contextSize: 4096, // tokens of one request, prompt and answer
  threads: 2, // of this process's processors
  flashAttention: true,
  maxConcurrent: 8, // requests that generate at once; more wait their turn
  timeoutMs: 60_000, // of one request, from its submission to its last token
})

const { text, usage, timings } = await model.generateWith('The best way to learn a language is', { maxTokens: 40 })
console.log(text)
console.log(`${usage.completionTokens} tokens, the first after ${timings.timeToFirstToken.toFixed(0)} ms`)
await model.close()
