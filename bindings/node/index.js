'use strict'

// The public package. The work is done in lib/ and, behind it, in Rust.

const { MullamaError } = require('./lib/errors.js')
const { Model } = require('./lib/model.js')
const { TokenStream } = require('./lib/stream.js')

module.exports = { Model, TokenStream, MullamaError }
