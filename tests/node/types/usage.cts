// The same package for CommonJS; compiled, never run.

import mullama = require('mullama')

async function main(): Promise<string> {
  const model: mullama.Model = await mullama.Model.load('model.gguf')
  const code: mullama.ErrorCode = 'closed'
  return (await model.generate('prompt', 5)) + code
}

void main()
