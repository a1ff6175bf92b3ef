// Measures what a lease of a pool costs in Node: `node bench/leases.mjs MODEL.gguf
// [FILE]`, of the mullama that is imported from that file.
//
// Prints one JSON object: microseconds for a lease that is free, acquired and
// released, and for one that two functions pass to and fro.

import { pathToFileURL } from 'node:url'

const [model, file] = process.argv.slice(2)
const { ModelPool } = await import(file ? pathToFileURL(file) : 'mullama')

const N = 5000
const pool = await ModelPool.create({ modelPath: model, contextSize: 64 }, 1)

async function free(n) {
  for (let i = 0; i < n; i++) (await pool.acquire()).release()
}

async function take(n) {
  for (let i = 0; i < n; i++) {
    const lease = await pool.acquire()
    // Lets the other one ask for it.
    await Promise.resolve()
    lease.release()
  }
}

async function timed(work) {
  const start = performance.now()
  await work()
  return ((performance.now() - start) * 1e3) / N
}

await free(100)
const result = {
  acquire_and_release_us: await timed(() => free(N)),
  passed_from_task_to_task_us: await timed(() => Promise.all([take(N / 2), take(N / 2)])),
}
console.log(JSON.stringify({ system: 'mullama (Node)', workload: 'leases', result }))
await pool.close()
