// Prints what the Node package declares, as JSON: for each exported name its
// members, read by the TypeScript compiler. Part of parity.py.

import { relative, resolve } from 'node:path'
import ts from 'typescript'

const entry = resolve('bindings/node/index.d.ts')
const program = ts.createProgram([entry], {
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  target: ts.ScriptTarget.ES2022,
  types: ['node'],
})
const checker = program.getTypeChecker()
const names = {}
for (const symbol of checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(entry)))) {
  names[symbol.name] = members(symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol)
}
console.log(JSON.stringify(names))

/** The members of a class or interface, the values of a union of strings, or null for anything else. */
function members(symbol) {
  if (symbol.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Interface)) {
    const own = checker.getPropertiesOfType(checker.getDeclaredTypeOfSymbol(symbol))
    const statics = symbol.flags & ts.SymbolFlags.Class ? [...symbol.exports.values()] : []
    const found = [...own, ...statics].filter(isOurs).map(nameOf)
    return hasPublicConstructor(symbol) ? ['new', ...found] : found
  }
  const type = checker.getDeclaredTypeOfSymbol(symbol)
  const values = type.isUnion() ? type.types.filter((it) => it.isStringLiteral()).map((it) => it.value) : []
  return values.length > 0 ? values : null
}

/** Not inherited from a class of JavaScript. */
function isOurs(member) {
  const file = member.declarations?.[0].getSourceFile().fileName
  return member.name !== 'prototype' && file !== undefined && !relative('bindings/node', file).startsWith('..')
}

/** The name; `[Symbol.asyncDispose]` for a symbol's, which the compiler mangles. */
function nameOf(member) {
  const symbol = /^__@(\w+)@/.exec(member.name)
  return symbol ? `[Symbol.${symbol[1]}]` : member.name
}

function hasPublicConstructor(symbol) {
  const constructors = symbol.members?.get('__constructor')?.declarations ?? []
  return constructors.some((it) => !(ts.getCombinedModifierFlags(it) & ts.ModifierFlags.Private))
}
