// The same package for `import`; one instance serves both.

import mullama from './index.js'

export const { Model, TokenStream, MullamaError } = mullama
