import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SetupError } from '../../../src/errors.ts'
import { OllamaProvider } from '../../../src/providers/ollama.ts'
import { OpenAiProvider } from '../../../src/providers/openai.ts'
import { estimateTokens } from '../../../src/providers/remote.ts'

describe('estimateTokens', () => {
  // Counted with cl100k_base.
  it.each([
    ['Hello, world!', 4],
    ['How do I restart the X server without a reboot?', 11],
    ['sudo apt-get install --reinstall libgl1-mesa-dri', 14],
    ['2024-05-01T12:33:01.123Z [ERROR] pid=3321', 22],
    ['Привет, как дела?', 8],
    ['你好，我想知道如何安装这个软件包。', 18],
    ['こんにちは', 1],
    ['Καλημέρα, πώς μπορώ', 20],
    ['😀🎉🚀', 8],
    ['550e8400-e29b-41d4-a716-446655440000', 18],
  ])('is no less than the truth for %j', (text, tokens) => {
    expect(estimateTokens(text)).toBeGreaterThanOrEqual(tokens)
    expect(estimateTokens(text)).toBeLessThanOrEqual(Math.max(tokens * 3, 10))
  })

  it.each([
    ['dGhpcyBpcyBiYXNlNjQgdGV4dCBmb3IgYSB0ZXN0', 31],
    ['xkqzvb wqrtpl mnbvcx zlkjhg', 16],
    ['齉龘靐', 7],
  ])('stays within the margin of the limits for %j', (text, tokens) => {
    expect(estimateTokens(text)).toBeGreaterThanOrEqual(tokens * (6000 / 8191))
  })

  it('is 0 for nothing, and at least one for every visible text', () => {
    expect(estimateTokens('')).toBe(0)
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1 }), (text) => {
        if (text.trim() !== '') expect(estimateTokens(text)).toBeGreaterThanOrEqual(1)
      }),
    )
  })

  it('never exceeds what byte-level tokenizers can make, two tokens a character and one a byte, by far', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(estimateTokens(text)).toBeLessThanOrEqual(2 * text.length + 1)
      }),
    )
  })

  it('never grows when the end of a text is cut off, on which the search for a cut relies', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.nat(), (text, at) => {
        expect(estimateTokens(text.slice(0, at % (text.length + 1)))).toBeLessThanOrEqual(
          estimateTokens(text),
        )
      }),
    )
  })

  it('counts parts together at least as high as the whole: a text that is cut keeps its estimate', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.nat(), (text, at) => {
        const cut = at % (text.length + 1)
        const parts = estimateTokens(text.slice(0, cut)) + estimateTokens(text.slice(cut))
        expect(parts + 1).toBeGreaterThanOrEqual(estimateTokens(text))
      }),
    )
  })
})

describe('configuration', () => {
  const key = 'sk-secret'

  it('refuses dimensions that the model does not have before anything is sent', () => {
    const make = (model: string, dimensions: number) => () =>
      new OpenAiProvider({ apiKey: key, model, dimensions })
    expect(make('text-embedding-ada-002', 512)).toThrow(/always gives 1536/)
    expect(make('text-embedding-3-small', 1537)).toThrow(/at most 1536/)
    expect(make('text-embedding-3-large', 0)).toThrow(/from 1/)
    expect(make('text-embedding-3-large', 1.5)).toThrow(SetupError)
    expect(make('text-embedding-3-small', 256)).not.toThrow()
    expect(make('text-embedding-ada-002', 1536)).not.toThrow()
    expect(make('some-other-model', 77)).not.toThrow()
  })

  it('knows the dimensions of the models of OpenAI without asking', async () => {
    const dimensions = (model: string) => new OpenAiProvider({ apiKey: key, model }).dimensions()
    expect(await dimensions('text-embedding-3-small')).toBe(1536)
    expect(await dimensions('text-embedding-3-large')).toBe(3072)
    expect(await dimensions('text-embedding-ada-002')).toBe(1536)
  })

  it('refuses a base URL that is none, without showing what may be a password', () => {
    for (const baseUrl of [
      '',
      'localhost:11434',
      'ftp://u:hunter2@h',
      'http//hunter2',
      'http://u:hunter2@h',
    ]) {
      expect(() => new OllamaProvider({ baseUrl, model: 'm' })).toThrow(SetupError)
      expect(() => new OllamaProvider({ baseUrl, model: 'm' })).not.toThrow(/hunter2/)
    }
  })

  it('refuses a key that cannot stand in a header, without showing it', () => {
    const make = () => new OpenAiProvider({ apiKey: 'sk-se\ncret', model: 'm' })
    expect(make).toThrow(/copy it again/)
    expect(make).not.toThrow(/cret/)
  })

  it('gives small models of Ollama small limits, and lets every limit be set', () => {
    const limits = (model: string) => new OllamaProvider({ baseUrl: 'http://h', model }).limits
    expect(limits('all-minilm:33m').maxTokensPerText).toBe(250)
    expect(limits('nomic-embed-text').maxTokensPerText).toBe(500)
    const set = new OllamaProvider({ baseUrl: 'http://h', model: 'm', limits: { maxTokensPerText: 8000 } })
    expect(set.limits).toMatchObject({ maxTokensPerText: 8000, maxTextsPerRequest: 64 })
  })
})
