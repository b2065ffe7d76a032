// Compiles src/ into dist/, file by file, unless it is up to date. Types are not checked: that is what
// `npm run typecheck` is for. Plain JavaScript, because it runs before anything else can; the command line calls it at
// every start (5 ms when nothing changed), so that compiled code is never older than its source.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import './generate.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)
const stamp = join(root, 'dist/sources.sha256')

const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((file) => /\.c?ts$/.test(file))
  .sort()
  .map((file) => ({ file, text: readFileSync(join(root, 'src', file), 'utf8') }))
const hash = createHash('sha256').update(require('typescript/package.json').version)
for (const path of [fileURLToPath(import.meta.url), join(root, 'tsconfig.json')]) {
  hash.update(readFileSync(path))
}
for (const { file, text } of sources) hash.update(`${file}\0${text}\0`)
const wanted = hash.digest('hex')

if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
  const { default: ts } = await import('typescript')
  const { compilerOptions } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile).config
  const options = {
    ...ts.convertCompilerOptionsFromJson(compilerOptions, root).options,
    module: ts.ModuleKind.ESNext,
    noEmit: false,
    rewriteRelativeImportExtensions: true,
    inlineSourceMap: true,
  }
  const compiled = new Set()
  for (const { file, text } of sources) {
    const path = join(root, 'dist', file.replace(/ts$/, 'js'))
    mkdirSync(dirname(path), { recursive: true })
    const fileName = join(root, 'src', file)
    put(path, ts.transpileModule(text, { fileName, compilerOptions: options }).outputText)
    compiled.add(path)
  }
  for (const file of readdirSync(join(root, 'dist'), { recursive: true, encoding: 'utf8' })) {
    const path = join(root, 'dist', file)
    if (/\.c?js$/.test(file) && !compiled.has(path)) rmSync(path)
  }
  put(stamp, wanted)
}

/** Another process may compile the same at the same time, or run what is there: no file is ever seen half written. */
function put(path, text) {
  const whole = `${path}.${process.pid}`
  writeFileSync(whole, text)
  renameSync(whole, path)
}
