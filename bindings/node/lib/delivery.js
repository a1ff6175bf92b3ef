'use strict'

// Promises that the native side settles, many in one call.

/** @typedef {{ resolve: (value: any) => void, reject: (error: Error) => void }} Settle */

/** @type {Map<number, Settle>} */
const waiting = new Map()

/** The promise of a key. */
function wait(key) {
  return new Promise((resolve, reject) => waiting.set(key, { resolve, reject }))
}

/** Lets `native` settle its promises here. */
function attach(native) {
  native.attachDelivery(wait, () => {
    const letters = native.takeLetters()
    for (let at = 0; at < letters.length; at += 3) {
      const [key, fulfilled, value] = [letters[at], letters[at + 1], letters[at + 2]]
      const { resolve, reject } = /** @type {Settle} */ (waiting.get(key))
      waiting.delete(key)
      if (fulfilled) resolve(value)
      else reject(new Error(value))
    }
  })
}

module.exports = { attach }
