'use strict'

// AbortSignals: the link between a caller's signal and a native `Cancel`.

const native = require('./native.js')
const { fromNative, invalidInput, describe } = require('./errors.js')

/** The signal, or undefined if none was given. */
function checkSignal(signal) {
  if (signal === undefined || signal === null) return undefined
  if (typeof signal.aborted !== 'boolean' || typeof signal.addEventListener !== 'function') {
    throw invalidInput('signal', describe(signal), 'use an AbortSignal')
  }
  return signal
}

/** Awaits `call()`; a native failure becomes a MullamaError. */
async function settle(call) {
  try {
    return await call()
  } catch (error) {
    throw fromNative(error)
  }
}

/** The value of `call()`; a native failure becomes a MullamaError. */
function settleSync(call) {
  try {
    return call()
  } catch (error) {
    throw fromNative(error)
  }
}

/**
 * Awaits `call(cancel)`. A signal that has fired starts nothing; one that
 * fires later cancels the native work. Both reject with the signal's reason.
 * `discard` gets a result that came too late to be given back.
 */
async function settleWithSignal(signal, call, discard) {
  signal = checkSignal(signal)
  if (signal?.aborted) throw signal.reason
  // As many turns with a signal as without: calls that need not wait give
  // their results in their order.
  const cancel = signal && new native.Cancel()
  if (signal) link(signal, cancel)
  try {
    const result = await call(cancel)
    if (signal?.aborted) {
      await discard?.(result)
      throw signal.reason
    }
    return result
  } catch (error) {
    throw signal?.aborted ? signal.reason : fromNative(error)
  } finally {
    if (signal) unlink(signal, cancel)
  }
}

/** What each signal cancels. */
const links = new WeakMap()

class Link {
  cancels = new Set()
  onAbort = () => {
    for (const cancel of this.cancels) cancel.cancel()
  }
}

/**
 * Lets the signal cancel `cancel`, and keeps nothing else alive. One listener
 * serves all calls of a signal: Node warns of more than ten.
 */
function link(signal, cancel) {
  let link = links.get(signal)
  if (link === undefined) {
    link = new Link()
    links.set(signal, link)
    signal.addEventListener('abort', link.onAbort)
  }
  link.cancels.add(cancel)
}

/** Undoes `link`. Idempotent. */
function unlink(signal, cancel) {
  const link = links.get(signal)
  if (!link?.cancels.delete(cancel) || link.cancels.size > 0) return
  links.delete(signal)
  signal.removeEventListener('abort', link.onAbort)
}

module.exports = { checkSignal, link, settle, settleSync, settleWithSignal, unlink }
