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
  if (signal === undefined) return settle(call)
  if (signal.aborted) throw signal.reason
  const cancel = new native.Cancel()
  const onAbort = () => cancel.cancel()
  signal.addEventListener('abort', onAbort)
  try {
    const result = await call(cancel)
    if (signal.aborted) {
      await discard?.(result)
      throw signal.reason
    }
    return result
  } catch (error) {
    throw signal.aborted ? signal.reason : fromNative(error)
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

module.exports = { checkSignal, settle, settleSync, settleWithSignal }
