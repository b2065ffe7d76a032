import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Lowest first; what stands in one row must not know of each other. */
const layers = [
  ['errors', 'log', 'bell', 'metrics', 'bytes'],
  ['config'],
  ['db'],
  ['jobs', 'providers'],
  ['embedding'],
  ['words'],
  ['search', 'knowledge', 'conversations', 'ingest'],
  ['extraction'],
  ['graphql'],
  ['server'],
  ['app', 'doctor'],
  ['cli'],
]
const heightOf = new Map(layers.flatMap((names, height) => names.map((name) => [name, height] as const)))

/** The configuration is a union of what its readers accept, and they say what that is. */
const typesOnly = new Set(
  ['src/providers/chat/create.ts', 'src/providers/create.ts'].map((reader) => `src/config.ts -> ${reader}`),
)

interface Import {
  from: string
  to: string
  isTypeOnly: boolean
}

const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .map((file) => join('src', file))
  .filter((file) => /\.c?[jt]s$/.test(file) && !file.includes('/generated/'))
const imports = files.flatMap(importsOf)

function importsOf(file: string): Import[] {
  const source = ts.createSourceFile(file, readFileSync(join(root, file), 'utf8'), ts.ScriptTarget.Latest)
  const found: Import[] = []
  const add = (specifier: ts.Node | undefined, isTypeOnly: boolean) => {
    if (!specifier || !ts.isStringLiteral(specifier) || !specifier.text.startsWith('.')) return
    found.push({ from: file, to: normalize(join(dirname(file), specifier.text)), isTypeOnly })
  }
  function visit(node: ts.Node): void {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, node.importClause?.isTypeOnly ?? false)
    if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly)
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false)
    }
    if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal, true)
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

/** The part of the source that a file belongs to: a folder of src, or a file that stands in src itself. */
const partOf = (file: string) => relative('src', file).split('/')[0]?.replace(/\.ts$/, '') ?? ''

const describeImport = ({ from, to }: Import) => `${from} -> ${to}`

describe('imports in src', () => {
  test('are found', () => {
    expect(imports.length).toBeGreaterThan(200)
    expect(imports).toContainEqual({ from: 'src/app.ts', to: 'src/config.ts', isTypeOnly: true })
    expect(imports).toContainEqual({ from: 'src/app.ts', to: 'src/db/database.ts', isTypeOnly: false })
  })

  test('stay within src', () => {
    expect(imports.filter(({ to }) => !to.startsWith('src/')).map(describeImport)).toEqual([])
  })

  test('are of parts that have a layer', () => {
    expect(new Set(files.map(partOf))).toEqual(new Set(heightOf.keys()))
  })

  test('go down the layers only, and so never in a circle', () => {
    const height = (file: string) => heightOf.get(partOf(file)) ?? Number.NaN
    const wrong = imports.filter(
      (found) =>
        partOf(found.from) !== partOf(found.to) &&
        !(height(found.from) > height(found.to)) &&
        !(found.isTypeOnly && typesOnly.has(describeImport(found))),
    )
    expect(wrong.map(describeImport)).toEqual([])
  })

  test('have no exception that nobody needs', () => {
    expect([...typesOnly].filter((exception) => !imports.map(describeImport).includes(exception))).toEqual([])
  })
})

test('the environment is read in one place', () => {
  const readers = files.filter((file) =>
    /\bprocess\s*(\.|\[['"])env\b/.test(readFileSync(join(root, file), 'utf8')),
  )
  expect(readers).toEqual(['src/cli.ts'])
})
