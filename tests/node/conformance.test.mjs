// Runs the conformance cases (tests/conformance/README.md) through `Model`.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, describe, test } from 'node:test'
import { inspect } from 'node:util'
import { Model, MullamaError } from 'mullama'
import { MODEL, ROOT, until } from './support.mjs'

const CASES = join(ROOT, 'tests/conformance/cases')
const folder = mkdtempSync(join(tmpdir(), 'mullama-conformance-'))
const models = new Map()

const applies = (part) => (part.languages ?? ['node']).includes('node')

for (const name of readdirSync(CASES).sort()) {
  const { cases, model, load = {} } = JSON.parse(readFileSync(join(CASES, name), 'utf8'))
  describe(basename(name, '.json'), () => {
    for (const item of cases.filter(applies)) test(item.name, () => runCase({ model, load, ...item }))
  })
}

after(async () => {
  await Promise.all([...models.values()].map(async (model) => (await model).close()))
  rmSync(folder, { recursive: true })
})

async function runCase(item) {
  const model = await modelOf(item)
  try {
    const saved = {}
    for (const [index, step] of item.steps.entries()) {
      if (!applies(step)) continue
      checkStep(index + 1, step, await outcome(model, step.call, resolve(step.with ?? {}, saved)), saved)
    }
  } finally {
    if (item.own_model) await model.close()
  }
}

function checkStep(number, step, found, saved) {
  const kind = 'error' in step ? 'error' : 'result'
  const show = (value) => inspect(value, { depth: 6, maxStringLength: 500 })
  assert.ok(kind in found, `step ${number}: expected ${kind}, got ${show(found)}`)
  const fault = mismatch(resolve(step.error ?? ('expect' in step ? step.expect : { $and: [] }), saved), found[kind])
  assert.equal(fault, null, `step ${number}: ${kind}${fault}\nin ${show(found[kind])}`)
  if (step.save) saved[step.save] = found[kind]
}

// Calls

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

async function outcome(model, name, given) {
  try {
    return { result: plain(await call(model, name, given)) ?? null }
  } catch (error) {
    if (!(error instanceof MullamaError)) throw error
    return { error: plain({ code: error.code, message: error.message, ...error }) }
  }
}

async function call(model, name, given) {
  switch (name) {
    case 'generate':
      return model.generateWith(given.prompt, options(given.options))
    case 'generate_text':
      return model.generate(given.prompt, given.max_tokens)
    case 'stream':
      return readStream(model, given)
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
    case 'close':
      return model[name]()
    case 'is_ready':
      return model.isReady()
    case 'together':
      return Promise.all(given.calls.map((item) => outcome(model, item.call, item.with)))
    case 'value':
      return given.of
  }
  throw new Error(`unknown call ${name}`)
}

async function readStream(model, given) {
  const stream = model.generateStream(given.prompt, options(given.options))
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

// Values and expectations: README.md, 'Values' and 'Expectations'

/** The name and argument of an operator, if the value is one. */
function operator(value) {
  const entries = isObject(value) ? Object.entries(value) : []
  return entries.length === 1 && entries[0][0].startsWith('$') ? entries[0] : undefined
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Characters of a string, not its UTF-16 units; or the items of a list. */
const parts = (value) => [...value]
const like = (value, list) => (typeof value === 'string' ? list.join('') : list)

/** The value with all that computes a value replaced by what it computes. */
function resolve(value, saved) {
  if (Array.isArray(value)) return value.map((item) => resolve(item, saved))
  if (!isObject(value)) return value
  const resolved = Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, saved)]))
  const [name, argument] = operator(resolved) ?? []
  switch (name) {
    case '$get':
      return part(saved, argument.match(/[^.[\]]+/g))
    case '$slice':
      return like(argument[0], parts(argument[0]).slice(argument[1], argument[2]))
    case '$concat':
      return like(argument[0], argument.flatMap(parts))
    case '$repeat':
      return like(argument[0], Array(argument[1]).fill(argument[0]).flat())
    case '$length':
      return parts(argument).length
    case '$sum':
      return argument.reduce((a, b) => a + b)
    case '$number':
      return number(argument)
    case '$script':
      return argument.map((token, place) => [token, 1_000_000 - 10_000 * place])
  }
  return resolved
}

function part(value, [key, ...rest]) {
  if (key === undefined) return value
  if (key === '*') return value.map((item) => part(item, rest))
  return part(Array.isArray(value) ? value.at(Number(key)) : value[key], rest)
}

function number(text) {
  const special = { nan: NaN, inf: Infinity, '-inf': -Infinity }[text]
  if (special !== undefined) return special
  return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text)
}

const TYPES = {
  null: (value) => value === null,
  boolean: (value) => typeof value === 'boolean',
  integer: (value) => Number.isInteger(value) || typeof value === 'bigint',
  number: (value) => typeof value === 'number',
  string: (value) => typeof value === 'string',
  list: Array.isArray,
  object: isObject,
}

/** Where and how `actual` is not as expected; null if it is. */
function mismatch(expected, actual = null) {
  const shown = () => inspect(actual, { maxStringLength: 500 })
  const found = operator(expected)
  if (found) return operatorMismatch(found[0], found[1], actual)
  if (isObject(expected)) {
    if (!isObject(actual)) return `: expected an object, got ${shown()}`
    return first(Object.entries(expected).map(([key, item]) => [`.${key}`, item, actual[key]]))
  }
  if (Array.isArray(expected)) {
    if (actual?.length !== expected.length) return `: expected a list of ${expected.length}, got ${shown()}`
    return first(expected.map((item, at) => [`[${at}]`, item, actual[at]]))
  }
  return expected === actual ? null : `: expected ${inspect(expected)}, got ${shown()}`
}

function operatorMismatch(name, expected, actual) {
  const matches = (item, value) => mismatch(item, value) === null
  const check = {
    $len: () => matches(expected, parts(actual).length),
    $and: () => expected.every((item) => matches(item, actual)),
    $or: () => expected.some((item) => matches(item, actual)),
    $not: () => !matches(expected, actual),
    $gt: () => actual > expected,
    $gte: () => actual >= expected,
    $lt: () => actual < expected,
    $lte: () => actual <= expected,
    $starts_with: () => actual.startsWith(expected),
    $ends_with: () => actual.endsWith(expected),
    $contains: () =>
      typeof actual === 'string' ? actual.includes(expected) : actual.some((item) => matches(expected, item)),
    $is: () => TYPES[expected](actual),
    $falling: () => actual.every((item, at) => at === 0 || actual[at - 1][expected] >= item[expected]),
  }
  if (name === '$all') return first(actual.map((item, at) => [`[${at}]`, expected, item]))
  if (!check[name]) throw new Error(`unknown operator ${name}`)
  if (check[name]()) return null
  return `: expected ${name} ${inspect(expected, { depth: 6 })}, got ${inspect(actual, { maxStringLength: 500 })}`
}

/** The first mismatch, with where it is. */
function first(triples) {
  for (const [where, expected, actual] of triples) {
    const fault = mismatch(expected, actual)
    if (fault !== null) return where + fault
  }
  return null
}
