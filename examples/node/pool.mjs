// A pool of leases on one model: node examples/node/pool.mjs model.gguf
//
// A lease is a guarantee: its requests never wait for those of another one.
// All leases share one copy of the weights.

import { ModelPool } from 'mullama'

const pool = await ModelPool.create({ modelPath: process.argv[2], contextSize: 1024 }, 4)

const lease = await pool.acquire()
console.log(await lease.generate('The sea is', 20))
lease.release()

const { available, inUse } = pool.stats()
console.log(`${available} available, ${inUse} in use`)

// More users than leases: who finds none waits, first come first served.
async function answer(question) {
  const lease = await pool.acquire()
  try {
    return await lease.generate(question, 20)
  } finally {
    lease.release()
  }
}

const questions = Array.from({ length: 8 }, (_, n) => `The number ${n} is`)
const answers = await Promise.all(questions.map(answer))
for (const [n, text] of answers.entries()) console.log(`${questions[n]}${text}`.replaceAll('\n', ' '))

const { acquiredTotal, waitMsAvg } = pool.stats()
console.log(`${acquiredTotal} leases, ${waitMsAvg.toFixed(0)} ms of waiting for each`)
await pool.close()
