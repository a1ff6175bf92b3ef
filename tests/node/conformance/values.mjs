// What the cases compute and expect: tests/conformance/README.md, 'Values' and
// 'Expectations'.

import { inspect } from 'node:util'

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
export function resolve(value, saved) {
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
export function mismatch(expected, actual = null) {
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
