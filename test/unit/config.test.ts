import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { findConfigMistakes, knownVariables, parseConfig } from '../../src/config.ts'
import { SetupError } from '../../src/errors.ts'

describe('with nothing set', () => {
  test('runs embedded, with the local model, on this machine alone', () => {
    expect(parseConfig({})).toEqual({
      database: { kind: 'embedded', dataDir: '.quarry' },
      embedding: { type: 'local' },
      keepsQueries: true,
      providers: { encryptionKeys: [], network: 'loopback' },
      scoring: {
        weights: { content: 0.4, author: 0.2, recency: 0.2, topic: 0.2 },
        thresholds: { noise: 0.3, signal: 0.6 },
        importantAuthors: [],
      },
      extraction: {
        extractor: { type: 'local' },
        rules: {
          trigger: { messages: 10, windowHours: 24, patienceHours: 4 },
          batchSize: 50,
          minConfidence: 0.7,
          autoApprove: {},
        },
        isAutomatic: true,
      },
      server: {
        host: '127.0.0.1',
        port: 4000,
        corsOrigins: [],
        maxBodyBytes: 8 * 1024 * 1024,
        maxUploadBytes: 2 * 1024 * 1024 * 1024,
        telegramSecret: null,
      },
      indexes: { precision: null, limits: { memoryBytes: 1024 ** 3, workers: 2 } },
      jobs: { retentionDays: 30, alertWebhookUrl: null },
      workerPort: null,
      logLevel: 'info',
      serverUrl: null,
    })
  })

  test('takes an empty or blank variable for one that is not set', () => {
    const empty = { DATABASE_URL: '', QUARRY_DATA_DIR: '  ', PORT: '', OPENAI_API_KEY: '', QUARRY_URL: ' ' }
    expect(parseConfig(empty)).toEqual(parseConfig({}))
  })

  test('passes over variables of others', () => {
    expect(parseConfig({ PATH: '/bin', QUARRY_TEST_DATABASE_URL: 'x' })).toEqual(parseConfig({}))
  })
})

describe('the database', () => {
  test('is the Postgres of DATABASE_URL, with a pool of ten unless said otherwise', () => {
    const url = 'postgres://me:secret@db.example/quarry?sslmode=require'
    expect(parseConfig({ DATABASE_URL: url }).database).toEqual({ kind: 'postgres', url, poolSize: 10 })
    expect(parseConfig({ DATABASE_URL: url, QUARRY_DATABASE_POOL: '40' }).database).toMatchObject({
      poolSize: 40,
    })
  })

  test('is embedded in the folder of QUARRY_DATA_DIR', () => {
    expect(parseConfig({ QUARRY_DATA_DIR: '/data' }).database).toEqual({ kind: 'embedded', dataDir: '/data' })
  })
})

describe('the embedding provider', () => {
  test('has only the settings of its own kind', () => {
    const everything = {
      QUARRY_EMBEDDING_THREADS: '3',
      OPENAI_API_KEY: 'sk-1',
      OPENAI_BASE_URL: 'http://127.0.0.1:9/v1',
      OPENAI_EMBEDDING_MODEL: 'm',
      OPENAI_EMBEDDING_DIMENSIONS: '256',
      OLLAMA_BASE_URL: 'http://127.0.0.1:8',
      OLLAMA_EMBEDDING_MODEL: 'o',
    }
    const providerOf = (type: string) =>
      parseConfig({ ...everything, QUARRY_EMBEDDING_PROVIDER: type }).embedding
    expect(providerOf('local')).toEqual({ type: 'local', threads: 3 })
    expect(providerOf('openai')).toEqual({
      type: 'openai',
      apiKey: 'sk-1',
      baseUrl: 'http://127.0.0.1:9/v1',
      model: 'm',
      dimensions: 256,
    })
    expect(providerOf('ollama')).toEqual({ type: 'ollama', baseUrl: 'http://127.0.0.1:8', model: 'o' })
  })

  test('of openai is the official one with its small model, where only the key is given', () => {
    expect(parseConfig({ QUARRY_EMBEDDING_PROVIDER: 'openai', OPENAI_API_KEY: 'k' }).embedding).toEqual({
      type: 'openai',
      apiKey: 'k',
      baseUrl: null,
      model: 'text-embedding-3-small',
      dimensions: null,
    })
  })
})

test('what vector indexes may take is given in megabytes', () => {
  expect(
    parseConfig({
      QUARRY_EMBEDDING_PRECISION: 'half',
      QUARRY_INDEX_BUILD_MEMORY_MB: '64',
      QUARRY_INDEX_BUILD_WORKERS: '0',
    }).indexes,
  ).toEqual({ precision: 'HALF', limits: { memoryBytes: 64 * 1024 * 1024, workers: 0 } })
})

test('limits and origins are given in the units that their names say', () => {
  const { server } = parseConfig({
    QUARRY_CORS_ORIGINS: ' https://a.example, http://localhost:5173 ,',
    QUARRY_MAX_BODY_KB: '16',
    QUARRY_MAX_UPLOAD_MB: '3',
  })
  expect(server).toMatchObject({
    corsOrigins: ['https://a.example', 'http://localhost:5173'],
    maxBodyBytes: 16 * 1024,
    maxUploadBytes: 3 * 1024 * 1024,
  })
})

describe('scoring and extraction', () => {
  test('take single values and keep the other defaults', () => {
    const { scoring, extraction } = parseConfig({
      QUARRY_SCORE_WEIGHTS: 'content:0.5, topic:0.1',
      QUARRY_SCORE_THRESHOLDS: 'noise:0.2',
      QUARRY_IMPORTANT_AUTHORS: ' Anna, Ben B. ',
      QUARRY_AUTO_EXTRACT: 'off',
      QUARRY_EXTRACTION_MESSAGES: '5',
      QUARRY_AUTO_APPROVE: 'DECISION:0.9,QUESTION:1',
    })
    expect(scoring).toEqual({
      weights: { content: 0.5, author: 0.2, recency: 0.2, topic: 0.1 },
      thresholds: { noise: 0.2, signal: 0.6 },
      importantAuthors: ['Anna', 'Ben B.'],
    })
    expect(extraction.isAutomatic).toBe(false)
    expect(extraction.rules).toMatchObject({
      trigger: { messages: 5, windowHours: 24 },
      autoApprove: { DECISION: 0.9, QUESTION: 1 },
    })
  })

  test('ask the model that is configured', () => {
    const env = { OPENAI_API_KEY: 'k', OPENAI_EXTRACTION_MODEL: 'm', OLLAMA_EXTRACTION_MODEL: 'o' }
    const extractorOf = (type: string) =>
      parseConfig({ ...env, QUARRY_EXTRACTION_PROVIDER: type }).extraction.extractor
    expect(extractorOf('openai')).toEqual({ type: 'openai', apiKey: 'k', baseUrl: null, model: 'm' })
    expect(extractorOf('ollama')).toEqual({ type: 'ollama', baseUrl: 'http://127.0.0.1:11434', model: 'o' })
  })
})

describe('mistakes', () => {
  function mistakesOf(env: Record<string, string>): string {
    try {
      parseConfig(env)
    } catch (error) {
      if (error instanceof SetupError) return error.message
      throw error
    }
    throw new Error('there was no mistake')
  }

  test('are all reported at once, each by the name of its variable', () => {
    const env = {
      DATABASE_URL: 'mysql://x/y',
      QUARRY_DATABASE_POOL: '1',
      QUARRY_EMBEDDING_PROVIDER: 'cohere',
      QUARRY_EMBEDDING_THREADS: '1.5',
      OPENAI_BASE_URL: 'example.com',
      OPENAI_EMBEDDING_DIMENSIONS: '0',
      OLLAMA_BASE_URL: 'ftp://x',
      PORT: '70000',
      QUARRY_CORS_ORIGINS: 'nowhere',
      QUARRY_MAX_BODY_KB: 'many',
      QUARRY_MAX_UPLOAD_MB: '-1',
      QUARRY_LOG_LEVEL: 'loud',
      QUARRY_SCORE_WEIGHTS: 'content:2',
      QUARRY_SCORE_THRESHOLDS: 'loud:0.5',
      QUARRY_EXTRACTION_PROVIDER: 'human',
      QUARRY_EXTRACTION_MESSAGES: '4',
      QUARRY_EXTRACTION_WINDOW_HOURS: '200',
      QUARRY_EXTRACTION_MIN_CONFIDENCE: '1.5',
      QUARRY_AUTO_APPROVE: 'FACT:1',
      QUARRY_AUTO_EXTRACT: 'perhaps',
      QUARRY_URL: 'localhost',
    }
    const lines = mistakesOf(env).split('\n').slice(1)
    expect(lines.map((line) => line.trim().split(':')[0]).sort()).toEqual(Object.keys(env).sort())
  })

  test('hold the missing key beside the others', () => {
    const message = mistakesOf({ QUARRY_EMBEDDING_PROVIDER: 'openai', PORT: 'x' })
    expect(message).toContain('OPENAI_API_KEY: is needed')
    expect(message).toContain('PORT: must be a number')
  })

  test('never repeat a password', () => {
    expect(mistakesOf({ DATABASE_URL: 'mysql://me:secret@x/y' })).not.toContain('secret')
  })
})

describe('encryption keys', () => {
  const first = Buffer.alloc(32, 1)
  const second = Buffer.alloc(32, 2)

  test('are a list, the first one first', () => {
    const config = parseConfig({
      QUARRY_ENCRYPTION_KEY: `${first.toString('base64')}, ${second.toString('base64')}`,
    })
    expect(config.providers.encryptionKeys).toEqual([first, second])
  })

  test.each([
    [
      'too short',
      Buffer.alloc(16, 7).toString('base64'),
      'key 2 of 2 is 16 bytes in base64; expected 32 bytes',
    ],
    ['no base64', 'correct horse battery staple', 'key 2 of 2 is not base64; expected 32 bytes'],
  ])(
    'that are %s are told by their place, without themselves, and how to make one',
    (_what, wrong, message) => {
      const parse = () => parseConfig({ QUARRY_ENCRYPTION_KEY: `${first.toString('base64')},${wrong}` })
      expect(parse).toThrow(message)
      expect(parse).toThrow('openssl rand -base64 32')
      expect(parse).not.toThrow(wrong)
    },
  )
})

test.each([
  ['127.0.0.1', undefined, 'loopback'],
  ['localhost', undefined, 'loopback'],
  ['::1', undefined, 'loopback'],
  ['0.0.0.0', undefined, 'public'],
  ['10.0.0.1', undefined, 'public'],
  ['quarry.example', undefined, 'public'],
  ['0.0.0.0', 'private', 'private'],
  ['127.0.0.1', 'public', 'public'],
])(
  'providers that are added: where HOST is %s and QUARRY_PROVIDER_NETWORK %s, %s ones are allowed',
  (HOST, network, expected) => {
    expect(parseConfig({ HOST, QUARRY_PROVIDER_NETWORK: network }).providers.network).toBe(expected)
  },
)

test('without the variables that its mistakes name, an environment can be read', () => {
  const values = fc.constantFrom(
    '',
    'x',
    '0',
    '-1',
    '70000',
    'openai',
    'noise:1,signal:0',
    'content:1',
    'http://a',
  )
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...knownVariables, 'QUARRY_ELSE'), values), (env) => {
      const mistaken = findConfigMistakes(env).flatMap(({ variables }) => variables)
      const rest = Object.fromEntries(Object.entries(env).filter(([name]) => !mistaken.includes(name)))
      expect(findConfigMistakes(rest)).toEqual([])
      expect(() => parseConfig(rest)).not.toThrow()
      if (mistaken.length > 0) expect(() => parseConfig(env)).toThrow(SetupError)
    }),
  )
})
