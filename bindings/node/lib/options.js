'use strict'

// Arguments as the native side wants them. What is not JavaScript's own affair
// passes through unchecked.

const { invalidInput, describe } = require('./errors.js')

/** A copy of the options, which are one plain object or left out. */
function optionsObject(options) {
  if (options === undefined || options === null) return {}
  if (typeof options !== 'object' || Array.isArray(options)) {
    throw invalidInput('options', describe(options), 'use a plain object')
  }
  return { ...options }
}

/** As `optionsObject`; anything but an object stands for `maxTokens`. */
function requestOptions(options) {
  const simple = options !== undefined && options !== null && typeof options !== 'object'
  const copy = simple ? { maxTokens: options } : optionsObject(options)
  if (copy.logitBias instanceof Map) copy.logitBias = Object.fromEntries(copy.logitBias)
  return copy
}

/** A list of token ids; typed arrays become plain ones. */
function tokenList(tokens) {
  return ArrayBuffer.isView(tokens) ? Array.from(/** @type {Int32Array} */ (tokens)) : tokens
}

module.exports = { optionsObject, requestOptions, tokenList }
