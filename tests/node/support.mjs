// What the Node tests share. Not a test itself.

import { execFile } from 'node:child_process'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** The package's CommonJS entry, for workers, which resolve from elsewhere. */
export const ENTRY = join(ROOT, 'bindings/node/index.js')

/** The model of tests and examples; `make` fetches it, for tests that load it. */
export const MODEL =
  process.env.MULLAMA_TEST_MODEL ??
  join(process.env.MULLAMA_CACHE ?? join(homedir(), '.cache', 'mullama'), 'models', 'SmolLM2-135M-Instruct.Q4_1.gguf')

/** Options of a generation that goes on until it is stopped. */
export const ENDLESS = { maxTokens: 100_000, ignoreEos: true, timeoutMs: 600_000 }

/** A prompt of about `n` tokens. */
export function longPrompt(n) {
  return ' dog'.repeat(n)
}

/** Resolves when `condition()` holds; fails the test if it never does. */
export async function until(condition, what = String(condition)) {
  for (let i = 0; i < 10_000; i++) {
    if (await condition()) return
    await sleep(2)
  }
  throw new Error(`it never happened: ${what}`)
}

/** The error that `promise` rejects with. */
export async function rejection(promise) {
  let value
  try {
    value = await promise
  } catch (error) {
    return error
  }
  throw new Error(`expected a rejection, got ${JSON.stringify(value)}`)
}

const IMPORT = `import { Batch, Context, Model, ModelPool, TaskManager, configureRuntime, runtime } from 'mullama';
  const MODEL = ${JSON.stringify(MODEL)}; const ENDLESS = ${JSON.stringify(ENDLESS)};
  const turn = () => new Promise((resolve) => setTimeout(resolve, 5));`

/**
 * Runs an ES module's code in a process of its own, with the package, `MODEL`,
 * `ENDLESS` and `turn` at hand unless there is another `prelude`.
 */
export function run(code, flags = [], prelude = IMPORT) {
  return runNode([...flags, '--input-type=module', '-e', prelude + code])
}

/** Runs node; gives its exit code, signal and output. */
export function runNode(args) {
  return new Promise((resolve) => {
    // The time limit ends a child that hangs, and so fails the test.
    const options = { cwd: ROOT, timeout: 180_000, killSignal: 'SIGKILL' }
    const child = execFile(process.execPath, args, options, (_, stdout, stderr) => {
      resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr })
    })
  })
}
