// mullama from Node: `node bench/systems/mullama_node.mjs JOB.json`. The job says
// where it is installed: in this checkout, `mullama` is the checkout's own build.

import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { main } from './host.mjs'

const { mullama } = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { Model } = await import(pathToFileURL(mullama))

await main(async (job) => {
  const model = await Model.load(job.model, {
    maxConcurrent: job.at_once,
    contextSize: job.context,
    threads: job.threads,
    promptLookup: job.prompt_lookup,
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
