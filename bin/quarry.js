#!/usr/bin/env node
// Starts the command line: makes the generated code if it is not there yet, then runs the TypeScript as it is.
import { register } from 'tsx/esm/api'
import '../scripts/generate.js'

register()
await import('../src/cli.ts')
