'use strict'

// MullamaError, and the one place where native failures become one.

/** Every failure of mullama. `code` says which; see index.d.ts. */
class MullamaError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {Record<string, unknown>} [more] the cause, if there is one, and what else the kind has
   */
  constructor(code, message, { cause, ...details } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    Object.assign(this, details)
  }
}
Object.defineProperty(MullamaError.prototype, 'name', {
  value: 'MullamaError',
  configurable: true,
  writable: true,
})

/**
 * The MullamaError that a native failure stands for. The native side sends
 * JSON in the message; anything else is napi's own or a panic, so a bug.
 */
function fromNative(error) {
  if (error instanceof MullamaError) return error
  let payload
  try {
    payload = JSON.parse(error.message)
  } catch {
    // Not ours; handled below.
  }
  if (typeof payload?.code !== 'string') {
    const reason = error?.message ?? String(error)
    return new MullamaError('internal', `internal error: ${reason}`, { cause: error })
  }
  const { code, message, ...details } = payload
  return new MullamaError(code, message, details)
}

/** The same error as the core's, for arguments that only JavaScript sees. */
function invalidInput(field, value, reason) {
  return new MullamaError('invalid_input', `invalid ${field} '${value}': ${reason}`, {
    field,
    value,
    reason,
  })
}

/** What a message may call a value; never runs the caller's code. */
function describe(value) {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object') return 'an object'
  if (typeof value === 'function') return 'a function'
  return String(value)
}

/** Given to constructors that only the package itself may call. */
const INTERNAL = Symbol('mullama.internal')

module.exports = { INTERNAL, MullamaError, fromNative, invalidInput, describe }
