// The main thread and workers in loops take the processors from the engine,
// which then decodes with fewer threads, says the same, and takes the threads
// back when the processors are free. Only Linux tells of waiting threads.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { Model } from 'mullama'
import { MODEL } from './support.mjs'

/** How long a load may go unnoticed. Never a measure: an engine that is blind is what it catches. */
const LIMIT_MS = 60_000

/** How long other programs may keep the processors after the load, which then leaves open what would have been. */
const CROWDED_MS = 15_000

/** Answers beside a free processor within which threads must have come back. */
const FREE_ANSWERS = 10

const linux = process.platform === 'linux'

/** Starts `n` workers that never rest; gives the function that ends them. */
async function busyWorkers(n) {
  const workers = Array.from({ length: n }, () => new Worker('for (;;);', { eval: true }))
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('online', resolve))))
  return () => Promise.all(workers.map((worker) => worker.terminate()))
}

/** For how many milliseconds the processors have been idle, all together. */
function idleMs() {
  return Number(readFileSync('/proc/stat', 'utf8').split(/\s+/)[4]) * 10
}

/** Generates while `load` runs, which calls its argument until that is true, and after it. */
async function threadsGoAndComeBack(load) {
  const model = await Model.load(MODEL, { contextSize: 256, maxConcurrent: 1, deterministic: true, timeoutMs: 0 })
  const threads = () => model.metrics().threads
  const generate = () => model.generate('Once upon a time', { maxTokens: 128, temperature: 0, ignoreEos: true })
  try {
    const all = threads()
    assert.equal(all, availableParallelism())
    const expected = await generate()
    const end = performance.now() + LIMIT_MS
    await load(async (spin) => {
      // Where there is one processor there is nothing to give up.
      const isNoticed = () => threads() < all || all === 1
      let noticed = false
      while (!noticed) {
        assert.ok(performance.now() < end, `all ${all} threads are kept`)
        const running = generate()
        noticed = await spin(isNoticed)
        assert.equal(await running, expected)
        noticed ||= isNoticed()
      }
    })
    let free = 0
    for (const end = performance.now() + CROWDED_MS; threads() < all && performance.now() < end;) {
      const [start, before] = [performance.now(), idleMs()]
      assert.equal(await generate(), expected)
      if (idleMs() - before > 0.9 * (performance.now() - start)) free++
      assert.ok(free < FREE_ANSWERS, `${threads()} of ${all} threads`)
    }
    assert.equal(await generate(), expected)
  } finally {
    await model.close()
  }
}

test('a main thread that never rests takes threads until it does', { skip: !linux }, async () => {
  await threadsGoAndComeBack(async (generating) => {
    const stop = await busyWorkers(availableParallelism() - 1)
    // A turn of the event loop that takes a second, or until it is noticed.
    await generating(async (isNoticed) => {
      await sleep(10)
      for (const end = performance.now() + 1000; performance.now() < end;) if (isNoticed()) return true
      return false
    })
    await stop()
  })
})

test('workers that never rest take threads until they end', { skip: !linux }, async () => {
  await threadsGoAndComeBack(async (generating) => {
    const stop = await busyWorkers(availableParallelism())
    await generating(async (isNoticed) => isNoticed())
    await stop()
  })
})
