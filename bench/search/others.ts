import { existsSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type pg from 'pg'

/*
 * What Quarry is held against comes from a package of its own, bench/search/others: PostGraphile 4 needs another major
 * version of GraphQL.js, and two of them in one tree would refuse each other's schemas. Its types are not there when the
 * project is checked, so the little that is called stands here.
 */

const folder = join(import.meta.dirname, 'others')

interface Postgraphile {
  postgraphile(pool: pg.Pool, schema: string, options: Record<string, unknown>): RequestListener
}

export interface LangChainDocument {
  id?: string
  pageContent: string
  metadata: Record<string, unknown>
}

export interface LangChainStore {
  similaritySearch(
    query: string,
    k: number,
    filter?: Record<string, { in: readonly string[] }>,
  ): Promise<LangChainDocument[]>
  end(): Promise<void>
}

interface LangChain {
  PGVectorStore: {
    initialize(embeddings: object, config: Record<string, unknown>): Promise<LangChainStore>
  }
}

interface LangChainCore {
  Embeddings: new (
    parameters: object,
  ) => {
    embedQuery(text: string): Promise<number[]>
    embedDocuments(texts: string[]): Promise<number[][]>
  }
}

/** @throws Error that says how to install what is missing; before anything is measured, not in the middle of it */
export function requireOthers(): void {
  if (!existsSync(join(folder, 'node_modules'))) {
    throw new Error(
      'PostGraphile and LangChain, which the search benchmark compares with, are not installed: npm ci --prefix bench/search/others',
    )
  }
}

const load = <Module>(name: string): Module => {
  requireOthers()
  return createRequire(join(folder, 'package.json'))(name) as Module
}

export const loadPostgraphile = () => load<Postgraphile>('postgraphile')
export const loadLangChain = () => load<LangChain>('@langchain/community/vectorstores/pgvector')
export const loadLangChainCore = () => load<LangChainCore>('@langchain/core/embeddings')

/** `postgraphile 4.14.1`, for the notes of the report. */
export function otherVersion(name: string): string {
  const { version } = load<{ version: string }>(`${name}/package.json`)
  return `${name} ${version}`
}
