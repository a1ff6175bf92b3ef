// Loads a model, generates, and tells what it is: node examples/node/load.mjs model.gguf

import { Model } from 'mullama'

const model = await Model.load(process.argv[2], { timeoutMs: 0 }) // no time limit

const text = await model.generate('The future of AI is', 200)
console.log(text)

const info = await model.info()
console.log(`${info.name}: ${info.architecture}, ${info.nParams} parameters, trained for ${info.nCtxTrain} tokens`)
await model.close()
