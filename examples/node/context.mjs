// A memory that lasts, and is kept in a file: node examples/node/context.mjs model.gguf

import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Batch, Context, Model } from 'mullama'

const model = await Model.load(process.argv[2], { contextSize: 1024 })
const context = await Context.create(model)

async function say(text) {
  const prompt = `<|im_start|>user\n${text}<|im_end|>\n<|im_start|>assistant\n`
  const stream = context.generateStream(await model.tokenize(prompt, false, true), { maxTokens: 30, temperature: 0 })
  for await (const token of stream) process.stdout.write(token.text)
  const { cachedTokens, promptTokens } = stream.usage
  console.log(` (${cachedTokens} of ${promptTokens} tokens were there already)`)
}

// What was said stays; only what is new is computed.
await say('Name a color.')
await say('Name another one.')

// Another context, or another process, goes on from a file.
const file = join(tmpdir(), `mullama-example-${process.pid}.state`)
try {
  await context.saveState(file)
  const other = await Context.create(model)
  await other.loadState(file)
  console.log(`loaded ${other.nPast()} tokens, as many as ${context.nPast()}`)
  await other.close()
} finally {
  rmSync(file, { force: true })
}

// Several sequences in one batch: the likeliest token after each.
const batch = new Batch()
for (const [sequence, country] of ['France', 'Japan'].entries()) {
  batch.addSequence(sequence, await model.tokenize(`The capital of ${country} is`))
}
await context.clear()
const [next] = await context.processBatch([batch])
console.log(await Promise.all(next.map((token) => model.detokenize([token]))))
await model.close()
