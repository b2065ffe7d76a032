#!/usr/bin/env node
// Starts the command line, compiled from src/ first if that changed.
import { setFlagsFromString } from 'node:v8'
import '../scripts/build.js'

// On a machine with much memory V8 lets the heap grow by several times before it collects what is old: an import of any
// size then takes 100 MB more than it needs.
setFlagsFromString('--heap-growing-percent=50')

// GraphQL.js looks at it as it is loaded: unless it is in production, it compares the names of types with every look at one,
// in case a second copy of itself were installed. Nothing of ours depends on it.
process.env.NODE_ENV ??= 'production'

process.setSourceMapsEnabled(true)
await import('../dist/cli.js')
