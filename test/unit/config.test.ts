import { describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import { SetupError } from '../../src/errors.ts'

describe('with nothing set', () => {
  test('runs embedded, with the local model, on this machine alone', () => {
    expect(parseConfig({})).toEqual({
      database: { kind: 'embedded', dataDir: '.quarry' },
      embedding: { type: 'local' },
      server: {
        host: '127.0.0.1',
        port: 4000,
        corsOrigins: [],
        maxBodyBytes: 8 * 1024 * 1024,
        maxUploadBytes: 2 * 1024 * 1024 * 1024,
      },
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
