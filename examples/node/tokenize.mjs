// Text to tokens and back: node examples/node/tokenize.mjs model.gguf

import { Model } from 'mullama'

const model = await Model.load(process.argv[2])

const text = 'Hello, 世界!'
const tokens = await model.tokenize(text, false)
console.log(tokens.join(' '))
console.log(await model.detokenize(tokens))

// With the tokens that the model itself puts before a text, if it does.
console.log((await model.tokenize('Hello', true)).length)

// A special token by its name, or its name as plain text.
const name = '<|im_start|>'
console.log((await model.tokenize(name, false, true)).length, (await model.tokenize(name, false)).length)
await model.close()
