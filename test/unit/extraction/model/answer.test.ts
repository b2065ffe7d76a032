import { describe, expect, it } from 'vitest'
import { answerJsonSchema, answerSchema } from '../../../../src/extraction/model/answer.ts'

type Json = Record<string, unknown>

/** Every schema inside of a schema, with its path. */
function schemasOf(schema: Json, path = '$'): [path: string, schema: Json][] {
  const inner = Object.entries(Object(schema.properties)).flatMap(([name, property]) =>
    schemasOf(Object(property), `${path}.${name}`),
  )
  const items = schema.items === undefined ? [] : schemasOf(Object(schema.items), `${path}[]`)
  return [[path, schema], ...inner, ...items]
}

// https://platform.openai.com/docs/guides/structured-outputs, "Supported schemas"; of the limits of numbers and lengths,
// which depend on the model, none.
const supported = new Set([
  'type',
  'properties',
  'required',
  'additionalProperties',
  'items',
  'enum',
  'description',
])

describe('the JSON Schema of the answer', () => {
  const schemas = schemasOf({ ...answerJsonSchema.json })

  it('is found whole', () => {
    const paths = schemas.map(([path]) => path)
    expect(paths).toContain('$.atoms[].citations[].quote')
    expect(paths).toContain('$.links[].strength')
    expect(paths).toContain('$.topics[].messages[]')
  })

  it.each(schemas)('keeps to what the strict mode of OpenAI takes: %s', (_, schema) => {
    expect(Object.keys(schema).filter((keyword) => !supported.has(keyword))).toEqual([])
    const types = [schema.type].flat()
    expect(types.length).toBeGreaterThan(0)
    for (const type of types) expect(['object', 'array', 'string', 'number', 'null']).toContain(type)
    if (!types.includes('object')) return
    expect(schema.additionalProperties).toBe(false)
    expect(schema.required).toEqual(Object.keys(Object(schema.properties)))
  })

  it('is an object with a name that OpenAI takes', () => {
    expect(answerJsonSchema.json.type).toBe('object')
    expect(answerJsonSchema.name).toMatch(/^[a-zA-Z0-9_-]{1,64}$/)
  })

  it('asks for the citations before what is said on their ground', () => {
    const atom = new Map(schemas).get('$.atoms[]')
    const names = Object.keys(Object(atom?.properties))
    expect(names.indexOf('citations')).toBeLessThan(names.indexOf('type'))
    expect(names.indexOf('citations')).toBeLessThan(names.indexOf('content'))
  })
})

describe('the check of the answer', () => {
  it('takes an empty answer, and ignores what was not asked for', () => {
    const empty = { topics: [], atoms: [], links: [] }
    expect(answerSchema.parse(empty)).toEqual(empty)
    expect(answerSchema.parse({ ...empty, thoughts: 'none' })).toEqual(empty)
  })

  it.each([
    ['no object', []],
    ['a list that is missing', { topics: [], atoms: [] }],
    ['null for a list', { topics: [], atoms: [], links: null }],
    [
      'an unknown type',
      { topics: [], atoms: [], links: [{ from: 'x1', to: 'x2', type: 'LIKES', strength: 1 }] },
    ],
    [
      'a property that is missing',
      { topics: [], atoms: [], links: [{ from: 'x1', to: 'x2', type: 'SOLVES' }] },
    ],
    [
      'a number as text',
      { topics: [], atoms: [], links: [{ from: 'x1', to: 'x2', type: 'SOLVES', strength: '1' }] },
    ],
  ])('refuses %s', (_, answer) => {
    expect(answerSchema.safeParse(answer).success).toBe(false)
  })
})
