// node-llama-cpp: `node bench/systems/node_llama_cpp.mjs JOB.json`. The job says
// where it is installed, outside of this package.
//
// A request is `evaluate` on a sequence of its own, its cheapest way; that can't
// be cancelled within a prefill, so what is to be cancelled goes through
// LlamaCompletion, which takes a signal.

import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { main } from './host.mjs'

const { peer } = JSON.parse(readFileSync(process.argv[2], 'utf8'))

await main(async (job) => {
  // Part of a load: a program pays it once, before its first model.
  const { getLlama, LlamaCompletion } = await import(pathToFileURL(peer))
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: job.threads })
  const model = await llama.loadModel({ modelPath: job.model })
  const context = await model.createContext({
    contextSize: job.context,
    sequences: job.at_once,
    threads: job.threads,
    batchSize: 512,
  })
  return {
    async run({ prompt, tokens, signal }, answer) {
      const sequence = context.getSequence()
      const input = model.tokenize(prompt)
      try {
        if (signal) {
          const completion = new LlamaCompletion({ contextSequence: sequence })
          const onToken = (chunk) => chunk.forEach(() => answer.arrived())
          await completion.generateCompletion(input, { maxTokens: tokens, temperature: 0, signal, onToken })
          return
        }
        let n = 0
        for await (const _ of sequence.evaluate(input, { temperature: 0, yieldEogToken: true })) {
          answer.arrived()
          if (++n >= tokens) break
        }
      } finally {
        await sequence.dispose()
      }
    },
    // Its own clean-up at the end of the process is enough.
    close: async () => process.exit(0),
  }
})
