import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InvalidInputError } from '../../../../src/errors.ts'
import { formatPath, jsonId, outlineJson, readJson } from '../../../../src/ingest/formats/json-stream.ts'

function source(chunks: readonly Buffer[]) {
  return {
    name: 'upload.json',
    open: async function* () {
      yield* chunks
    },
  }
}

/** The bytes cut at the places given, which wrap around. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const ends = [...new Set(places.map((place) => place % (bytes.length + 1))), bytes.length].sort(
    (a, b) => a - b,
  )
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end))
}

async function elements(chunks: readonly Buffer[]) {
  const found: unknown[] = []
  let error: unknown
  try {
    for await (const piece of readJson(source(chunks), (path) => path.length === 1)) {
      if (piece.kind === 'value') found.push(piece.value)
    }
  } catch (thrown) {
    error = thrown
  }
  return { found, error }
}

async function refusal(content: string | Buffer): Promise<string> {
  const { error } = await elements([Buffer.from(content)])
  expect(error).toBeInstanceOf(InvalidInputError)
  return String(error)
}

const anyText = fc.string({ unit: 'binary' })
const anyJson = fc.jsonValue({ stringUnit: 'binary' })
const places = fc.array(fc.nat(), { maxLength: 12 })

describe('the elements of a document', () => {
  test('are those of JSON.parse, in any chunking and any layout', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyJson), places, fc.nat(3), async (values, cuts, indent) => {
        const text = JSON.stringify(values, null, indent)
        const { found, error } = await elements(cut(Buffer.from(text), cuts))
        expect(error).toBeUndefined()
        expect(found).toEqual(JSON.parse(text))
      }),
    )
  })

  test('are those of JSON.parse byte by byte, with escapes of every kind', async () => {
    const text = String.raw`["\ud800", "\u0000\ud83d\ude00", "\"\\\/\b\f\n\r\t", -0, 1e-7, 1E+300, {"__proto__":1}, "é\ufeff😀", true]`
    const bytes = Buffer.from(text)
    const { found } = await elements([...bytes.keys()].map((at) => bytes.subarray(at, at + 1)))
    expect(found).toEqual(JSON.parse(text))
    expect(JSON.stringify(found)).toBe(JSON.stringify(JSON.parse(text)))
  })

  test('keep every text unchanged: NUL, lone surrogates, byte order marks, a megabyte', async () => {
    const texts = ['a\0b', '\ud800', '\udc00x', '\ufeffhello\ufeff', 'مرحبا', '\u2028', 'ü'.repeat(1_000_000)]
    const bytes = Buffer.from(JSON.stringify(texts))
    const chunks = Array.from({ length: Math.ceil(bytes.length / 1000) }, (_, i) =>
      bytes.subarray(i * 1000, i * 1000 + 1000),
    )
    expect((await elements(chunks)).found).toEqual(texts)
  })

  test('come after a byte order mark as well', async () => {
    expect((await elements([Buffer.from('\ufeff[1]')])).found).toEqual([1])
  })
})

test('a document cut anywhere gives the elements before the cut, then names the byte', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyText, { minLength: 1 }), fc.nat(), places, async (texts, where, cuts) => {
      const whole = Buffer.from(JSON.stringify(texts.map((text) => ({ text }))))
      const part = whole.subarray(0, 1 + (where % (whole.length - 1)))
      const { found, error } = await elements(cut(part, cuts))
      const full = texts.map((text) => ({ text }))
      expect(found).toEqual(full.slice(0, found.length))
      let bytes = 1
      const before = full.filter((value) => {
        bytes += Buffer.byteLength(JSON.stringify(value)) + 1
        return bytes - 1 <= part.length
      })
      expect(found.length).toBe(before.length)
      expect(error).toBeInstanceOf(InvalidInputError)
      expect(String(error)).toContain(`at byte ${part.length}`)
    }),
  )
})

describe('a document that is not sound', () => {
  test.each([
    ['[{"a":1},{"a":nope}, "and so on"]', 'not valid JSON at byte 14'],
    ['\ufeff[{"a":1},{"a":nope}, "and so on"]', 'not valid JSON at byte 17'],
    ['[{"a":1},{"a":nope}]', 'damaged at its end, at byte 20, in [1]'],
    ['["ü", x]', 'not valid JSON at byte 7'],
    ['[1] trailing', 'not valid JSON at byte 4'],
    ['[1]x', 'not valid JSON at byte 3'],
    ['[1]\n[2]', 'not valid JSON at byte 4'],
    ['[1,]', 'not valid JSON at byte 3'],
    ['["line\nbreak"  ]', 'not valid JSON at byte 6'],
    ['   ', 'holds no JSON object or array'],
    ['"text" ', 'one bare value'],
    [`${'['.repeat(600)}`, 'deeper than 500 levels'],
  ])('%j: %s', async (content, expected) => {
    expect(await refusal(content)).toContain(expected)
  })

  test('is refused at the byte that is not UTF-8, wherever the chunks end', async () => {
    const bytes = Buffer.concat([Buffer.from('["öä😀", "'), Buffer.from([0xe4]), Buffer.from('rger"]')])
    const bad = bytes.indexOf(0xe4, 12) + 1
    for (let at = 0; at <= bytes.length; at++) {
      const { error } = await elements([bytes.subarray(0, at), bytes.subarray(at)])
      expect(String(error)).toContain(`not valid UTF-8 at byte ${bad}`)
    }
    const single = [...bytes.keys()].map((at) => bytes.subarray(at, at + 1))
    expect(String((await elements(single)).error)).toContain(`not valid UTF-8 at byte ${bad}`)
  })

  test('is refused at a value above 64 MiB, before it has been read', async () => {
    let sent = 0
    const open = async function* () {
      yield Buffer.from('{"name":"Orchard","messages":[1,{"text":"')
      const chunk = Buffer.alloc(1024 * 1024, 'x')
      for (sent = 0; sent < 200; sent++) yield chunk
    }
    const take = (path: readonly unknown[]) => path.length === 2
    const reading = async () => {
      for await (const _ of readJson({ name: 'big.json', open }, take));
    }
    await expect(reading()).rejects.toThrow(/messages\[1\].*larger than 64 MiB/)
    expect(sent).toBeLessThan(70)
  })
})

test('a document may be of any size as long as its values are not', async () => {
  const chunk = Buffer.from(`,{"text":"${'x'.repeat(9000)}"}`.repeat(100))
  const open = async function* () {
    yield Buffer.from('{"taken":[0')
    for (let sent = 0; sent < 70_000_000; sent += chunk.length) yield chunk
    yield Buffer.from(']}')
  }
  let count = 0
  for await (const piece of readJson(
    { name: 'long.json', open },
    (path) => path[0] === 'taken' && path.length > 1,
  )) {
    if (piece.kind === 'value') count++
  }
  expect(count).toBe(1 + 100 * Math.ceil(70_000_000 / chunk.length))
})

test('paths are written as people write them', () => {
  expect(formatPath(['chats', 'list', 3, 'messages', 812])).toBe('chats.list[3].messages[812]')
  expect(formatPath([4])).toBe('[4]')
  expect(formatPath([])).toBe('the top level')
})

test('ids are texts or whole numbers that JSON carries exactly', () => {
  expect([7, -3, '7', '', 1.5, 2 ** 53, null, undefined, {}].map(jsonId)).toEqual([
    '7',
    '-3',
    '7',
    ...Array(6).fill(null),
  ])
})

describe('the outline of a beginning', () => {
  test('shows the kinds of the first values, wherever it ends', () => {
    const text = JSON.stringify({
      name: 'Orchard',
      guild: { id: 1, deep: [{}] },
      messages: [{ id: 1 }],
      last: null,
    })
    const outline = outlineJson(Buffer.from(text))
    expect(outline?.root).toBe('object')
    expect([...(outline?.keys ?? [])]).toEqual([
      ['name', 'scalar'],
      ['guild', 'object'],
      ['messages', 'array'],
      ['last', 'scalar'],
    ])
    for (let end = 0; end < text.length; end++) {
      for (const key of outlineJson(Buffer.from(text.slice(0, end)))?.keys.keys() ?? []) {
        expect(outline?.keys.has(key)).toBe(true)
      }
    }
  })

  test('is null for what does not begin like a document', () => {
    expect(outlineJson(Buffer.from('12:34 <anna> hello'))).toBeNull()
    expect(outlineJson(Buffer.from(''))).toBeNull()
    expect(outlineJson(Buffer.from('42'))).toBeNull()
  })
})
