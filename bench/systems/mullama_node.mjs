// mullama from Node: `node bench/systems/mullama_node.mjs JOB.json`.

import { Model } from 'mullama'
import { main } from './host.mjs'

await main(async (job) => {
  const model = await Model.load(job.model, {
    maxConcurrent: job.at_once,
    contextSize: job.context,
    threads: job.threads,
    timeoutMs: 0,
  })
  return {
    async run({ prompt, tokens, signal }, answer) {
      const options = { maxTokens: tokens, temperature: 0, ignoreEos: true, signal }
      for await (const _ of model.generateStream(prompt, options)) answer.arrived()
    },
    close: () => model.close(),
  }
})
