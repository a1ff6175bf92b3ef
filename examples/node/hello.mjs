// Streams an answer: node examples/node/hello.mjs model.gguf "A question?"

import { Model } from 'mullama'

const [path, question = 'Why is the sky blue? Answer in one sentence.'] = process.argv.slice(2)
const model = await Model.load(path, { timeoutMs: 0 }) // no time limit

// The chat format (ChatML) of SmolLM2-Instruct and many other models.
const prompt = `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`

for await (const token of model.generateStream(prompt, { maxTokens: 60, temperature: 0 })) {
  process.stdout.write(token.text)
}
console.log()
await model.close()
