// The calls of the conformance cases: tests/conformance/README.md, 'Steps'.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Batch, Context, Model, ModelPool, MullamaError, TaskManager, backends, devices, runtime } from 'mullama'
import { MODEL, until } from '../support.mjs'
import { mismatch } from './values.mjs'

const folder = mkdtempSync(join(tmpdir(), 'mullama-conformance-'))
const models = new Map()

/** Closes the models that cases share. */
export async function cleanUp() {
  await Promise.all([...models.values()].map(async (model) => (await model).close()))
  rmSync(folder, { recursive: true })
}

/** A case while it runs: its model, and the objects that it made. */
export class Run {
  #item
  #model
  #objects = new Map()
  #folder = mkdtempSync(join(folder, 'case-'))

  static async start(item) {
    const run = new Run()
    run.#item = item
    run.#model = await modelOf(item)
    return run
  }

  async end() {
    for (const object of [...this.#objects.values()].reverse()) await object[Symbol.asyncDispose]?.()
    if (this.#item.own_model) await this.#model.close()
  }

  async outcome(name, given, signal) {
    try {
      return { result: plain(await this.#call(name, given, signal)) ?? null }
    } catch (error) {
      if (!(error instanceof MullamaError)) throw error
      return { error: plain({ code: error.code, message: error.message, ...error }) }
    }
  }

  async #call(name, given, signal) {
    const on = this.#objects.get(given.on)
    const model = this.#model
    switch (name) {
      case 'generate':
        return model.generateWith(given.prompt, options(given.options))
      case 'generate_text':
        return model.generate(given.prompt, given.max_tokens)
      case 'stream':
        return readStream(model.generateStream(given.prompt, options(given.options)), given)
      case 'tokenize':
        return model.tokenize(given.text, given.add_bos, given.parse_special)
      case 'detokenize':
        return model.detokenize(given.tokens)
      case 'load': {
        const loaded = await Model.load(file(given.file), options(given.options))
        const info = await loaded.info()
        await loaded.close()
        return info
      }
      case 'info':
      case 'metadata':
      case 'metrics':
      case 'placement':
      case 'close':
        return model[name]()
      case 'is_ready':
        return model.isReady()
      case 'backends':
        return backends()
      case 'devices':
        return devices()
      case 'runtime_metrics':
        return runtime().metrics()
      case 'metrics_text':
        return runtime().metricsText()
      case 'together':
        return Promise.all(given.calls.map((item) => this.outcome(item.call, item.with ?? {})))
      case 'value':
        return given.of

      case 'context_create':
        return this.#keep(given.as, await Context.create(model, options(given.options)))
      case 'context_generate':
        return readStream(on.generateStream(given.tokens, options(given.options)), given)
      case 'context_batch':
        return on.processBatch(given.batches.map(batch), { signal })
      case 'context_save':
        return on.saveState(join(this.#folder, given.file), { signal })
      case 'context_load':
        return on.loadState(join(this.#folder, given.file), { signal })
      case 'context_truncate':
        return on.truncate(given.n, { signal })
      case 'context_clear':
        return on.clear({ signal })
      case 'context_n_past':
        return on.nPast()
      case 'alter_file':
        return alterFile(join(this.#folder, given.file), given)

      case 'pool_create': {
        const create = { modelPath: file(this.#item.model), ...options(given.options) }
        return this.#keep(given.as, await ModelPool.create(create, given.size))
      }
      case 'pool_acquire':
        return this.#keep(given.as, await on.acquire({ timeoutMs: given.timeout_ms, signal }))
      case 'pool_try_acquire': {
        const lease = on.tryAcquire()
        if (lease) this.#keep(given.as, lease)
        return lease !== null
      }
      case 'pool_stats':
        return on.stats()
      case 'pool_resize':
        return on.resize(given.size)
      case 'context_close':
      case 'pool_close':
        return on.close()
      case 'lease_generate':
        return on.generateWith(given.prompt, options(given.options))
      case 'lease_release':
        return on.release()

      case 'tasks_create':
        return this.#keep(given.as, new TaskManager())
      case 'tasks_worker':
        return on.spawnGenerationWorker()
      case 'tasks_collector':
        return on.spawnMetricsCollector({ intervalMs: given.interval_ms, capacity: given.capacity })
      case 'tasks_submit': {
        const task = on.submit(model, given.prompt, options(given.options))
        // A later step asks how it ended.
        task.catch(() => {})
        return this.#keep(given.as, { task })
      }
      case 'tasks_status':
        return on.workerStatus()
      case 'tasks_history':
        return on.metricsHistory()
      case 'tasks_stop':
        return on.stopAll()
      case 'task_result':
        return on.task
      case 'task_cancel':
        return on.task.cancel()

      case 'start': {
        const { call, with: argument = {} } = given.run
        const controller = new AbortController()
        const ended = this.outcome(call, argument, controller.signal)
        ended.catch(() => {})
        return this.#keep(given.as, { controller, ended })
      }
      case 'finish':
        return on.ended
      case 'cancel':
        return on.controller.abort()
      case 'until': {
        const { call, with: argument = {} } = given.run
        let result
        await until(async () => {
          result = plain(await this.#call(call, argument)) ?? null
          return mismatch(given.is, result) === null
        }, JSON.stringify(given))
        return result
      }
    }
    throw new Error(`unknown call ${name}`)
  }

  #keep(name, object) {
    this.#objects.set(name, object)
  }
}

/** A shared model, or one of the case's own. */
function modelOf({ model, load, own_model: own }) {
  if (own) return Model.load(file(model), options(load))
  const key = JSON.stringify([model, load])
  if (!models.has(key)) models.set(key, Model.load(file(model), options(load)))
  return models.get(key)
}

/** The path of a file of that kind, made when first needed. */
function file(name) {
  if (name === 'demo') return MODEL
  const path = join(folder, `${name}.gguf`)
  if (name === 'directory') mkdirSync(path, { recursive: true })
  else if (name !== 'missing' && !existsSync(path)) {
    const kind = name === 'tiny' ? 'llama' : name.replace(/^tiny-/, '')
    execFileSync(tinyModelProgram(), [kind, path])
  }
  return path
}

/** `tiny-model` of tests/support, which `cargo build --workspace` makes. */
function tinyModelProgram() {
  const cache = process.env.MULLAMA_CACHE ?? join(homedir(), '.cache', 'mullama')
  return join(process.env.CARGO_TARGET_DIR ?? join(cache, 'target'), 'release', 'tiny-model')
}

async function readStream(stream, given) {
  const items = []
  const text = () => items.map((item) => item.text).join('')
  try {
    for await (const item of stream) {
      items.push(item)
      if (items.length === given.cancel_after) stream.cancel()
    }
  } catch (error) {
    error.streamed = text()
    throw error
  }
  // Iteration ends at once when it is cancelled; the native work within a step.
  await until(() => stream.finishReason !== null, 'the stream has a reason')
  const { finishReason, stopString, usage, seed } = stream
  return { items, text: text(), tokens: items.map((item) => item.tokenId), finishReason, stopString, usage, seed }
}

function batch(rows) {
  const batch = new Batch()
  for (const row of rows) {
    if ('tokens' in row) batch.addSequence(row.seq_id, row.tokens)
    else batch.add(row.token, row.position, row.seq_ids, row.logits)
  }
  return batch
}

function alterFile(path, { keep, at }) {
  if (keep !== undefined) return truncateSync(path, keep)
  const bytes = readFileSync(path)
  bytes[at < 0 ? bytes.length + at : at] ^= 0xff
  writeFileSync(path, bytes)
}

/** Options in JavaScript's spelling; a bias as a Map. */
function options(given) {
  if (given === undefined) return undefined
  const entries = Object.entries(given).map(([name, value]) => {
    const pairs = name === 'logit_bias' && Array.isArray(value)
    return [name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), pairs ? new Map(value) : value]
  })
  return Object.fromEntries(entries)
}

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** Results and errors in the cases' spelling. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object') return value
  const entries = Object.entries(value).map(([key, item]) => [snake(key), key === 'field' ? snake(item) : plain(item)])
  return Object.fromEntries(entries)
}
