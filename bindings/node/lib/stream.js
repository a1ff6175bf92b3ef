'use strict'

// TokenStream: iteration over the batches that the native side hands over.

const native = require('./native.js')
const { INTERNAL, MullamaError, fromNative } = require('./errors.js')
const { requestOptions } = require('./options.js')
const { checkSignal, link, unlink } = require('./signal.js')

/** @typedef {import('./native.js').Token} Token */
/** @typedef {(string | number | Token)[]} Entries */

/** @type {readonly Token[]} */
const NOTHING = Object.freeze([])

// A signal must not keep an abandoned stream alive, so it is linked to the
// native `Cancel` alone, until the stream is collected.
const abandoned = new FinalizationRegistry(({ signal, cancel }) => unlink(signal, cancel))

/**
 * The tokens of a batch: three entries each, or one that is the token.
 *
 * @param {any[]} entries
 */
function tokensOf(entries) {
  /** @type {Token[]} */
  const tokens = []
  for (let at = 0; at < entries.length; ) {
    const text = entries[at++]
    tokens.push(
      typeof text === 'string' ? { text, tokenId: entries[at++], index: entries[at++], isFinal: false } : text,
    )
  }
  return tokens
}

/** A generation that is running; made by `generateStream`. */
class TokenStream {
  /** @type {import('./native.js').NativeStream} */
  #native
  /** @type {import('./native.js').Cancel} */
  #cancel
  /** Tokens handed over; those before `#at` were given to the reader. */
  #batch = NOTHING
  #at = 0
  #ended = false
  /** An error to throw once from `next`. */
  #failure
  /** Readers that wait; each goes after the one before it. */
  #waiting = 0
  /** @type {Promise<any>} */
  #last = Promise.resolve()
  #signal

  /**
   * `start(cancel)` gives the native stream. An error of its own is thrown by
   * the first `next`, as every other.
   */
  constructor(key, signal, start) {
    if (key !== INTERNAL) {
      throw new MullamaError('unsupported', 'unsupported: streams are made by model.generateStream(prompt)')
    }
    this.#cancel = new native.Cancel()
    if (signal?.aborted) {
      this.#end(signal.reason)
      return
    }
    try {
      this.#native = start(this.#cancel)
    } catch (error) {
      this.#end(fromNative(error))
      return
    }
    if (signal) {
      link(signal, this.#cancel)
      abandoned.register(this, { signal, cancel: this.#cancel }, this)
      this.#signal = signal
    }
  }

  [Symbol.asyncIterator]() {
    return this
  }

  /** The next token. Concurrent calls are served in their order. */
  next() {
    if (this.#waiting === 0 && this.#at < this.#batch.length && !this.#signal?.aborted) {
      return Promise.resolve({ value: this.#batch[this.#at++], done: false })
    }
    const turn = () => this.#wait()
    // A reader that waits alone gets the promise of `#wait` itself, so that the
    // stack of an error leads to it.
    this.#waiting += 1
    this.#last = this.#waiting === 1 ? turn() : this.#last.then(turn, turn)
    return this.#last
  }

  async #wait() {
    try {
      if (this.#at >= this.#batch.length && !this.#ended) {
        try {
          this.#take(/** @type {Entries} */ (await this.#native.nextBatch()))
        } catch (error) {
          if (!this.#ended) this.#end(fromNative(error))
        }
      }
      // An abort ends the native stream without an error, so it comes first.
      if (this.#signal?.aborted) this.#end(this.#signal.reason)
      if (this.#failure) {
        const { error } = this.#failure
        this.#failure = undefined
        throw error
      }
      if (this.#at >= this.#batch.length) return { value: undefined, done: true }
      return { value: this.#batch[this.#at++], done: false }
    } finally {
      this.#waiting -= 1
    }
  }

  /** @param {Entries} entries */
  #take(entries) {
    if (this.#ended) return
    this.#batch = tokensOf(entries)
    this.#at = 0
    if (entries.length === 0 && !this.#signal?.aborted) this.#end()
  }

  /** Stops the native work and drops what was not read. Idempotent. */
  #end(...failure) {
    if (this.#ended) return
    this.#ended = true
    if (failure.length > 0) this.#failure = { error: failure[0] }
    this.#batch = NOTHING
    this.#at = 0
    this.#cancel.cancel()
    if (this.#signal) {
      unlink(this.#signal, this.#cancel)
      abandoned.unregister(this)
      this.#signal = undefined
    }
  }

  /** Called by `break` and `return` inside `for await`. */
  async return(value) {
    this.#end()
    return { value, done: true }
  }

  async throw(error) {
    this.#end()
    throw error
  }

  cancel() {
    this.#end()
  }

  async close() {
    this.#end()
  }

  // See Model for the second name.
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.close()
  }

  get finishReason() {
    return this.#native?.finishReason ?? null
  }

  get stopString() {
    return this.#native?.stopString ?? null
  }

  get usage() {
    return this.#native?.usage ?? { promptTokens: 0, cachedTokens: 0, completionTokens: 0 }
  }

  get timings() {
    return this.#native?.timings ?? { queued: 0, prefill: 0, decode: 0, timeToFirstToken: 0 }
  }

  get seed() {
    return this.#native?.seed ?? null
  }

  toReadableStream() {
    return new ReadableStream(
      {
        pull: async (controller) => {
          const { value, done } = await this.next()
          if (done) controller.close()
          else controller.enqueue(value)
        },
        cancel: () => this.cancel(),
      },
      // The native side buffers already.
      { highWaterMark: 0 },
    )
  }
}

/**
 * The stream that `start(options, cancel)` gives the native side of. Whatever
 * goes wrong comes out of the stream.
 */
function startStream(options, start) {
  let signal, rest
  try {
    ;({ signal, ...rest } = requestOptions(options))
    signal = checkSignal(signal)
  } catch (error) {
    return new TokenStream(INTERNAL, undefined, () => {
      throw error
    })
  }
  return new TokenStream(INTERNAL, signal, (cancel) => start(rest, cancel))
}

module.exports = { TokenStream, startStream }
