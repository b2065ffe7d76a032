import { Command, InvalidArgumentError } from 'commander'
import { benchEmbedding } from './embedding.ts'
import { type BenchPostgres, startPostgres } from './environment.ts'
import { benchImport } from './import.ts'
import { benchKnowledge } from './knowledge.ts'
import { benchLocal } from './local.ts'
import { benchMigration } from './migration.ts'
import { benchProgress } from './progress.ts'
import { describeRun, documentPath, type Report, toMarkdown, writeInto } from './report.ts'
import { benchSearch } from './search.ts'
import { benchStart } from './start.ts'

interface Options {
  write: boolean
  large: boolean
  rows: number
  quick: boolean
}

const onPostgres: Record<string, (postgres: BenchPostgres, options: Options) => Promise<Report>> = {
  search: benchSearch,
  embedding: benchEmbedding,
  import: benchImport,
  knowledge: benchKnowledge,
  progress: benchProgress,
  migration: benchMigration,
}
const onNothing: Record<string, (options: Options) => Promise<Report>> = {
  local: benchLocal,
  start: benchStart,
}
const names = [...Object.keys(onPostgres), ...Object.keys(onNothing)]

function readRows(text: string): number {
  const rows = Number(text)
  if (Number.isSafeInteger(rows) && rows >= 1_000) return rows
  throw new InvalidArgumentError('It is a whole number from 1000.')
}

const program = new Command('npm run bench --')
  .description('Measures speed and memory and prints a table for each benchmark.')
  .argument(
    '[name...]',
    `which: ${names.join(', ')}; all unless given`,
    (name: string, chosen: string[] = []) => {
      if (names.includes(name)) return [...chosen, name]
      throw new InvalidArgumentError(`There are: ${names.join(', ')}.`)
    },
  )
  .option('--write', 'put the tables into docs/benchmarks.md', false)
  .option('--large', 'import and search a million messages, too (takes minutes)', false)
  .option('--rows <count>', 'with --large, search so many messages instead of a million', readRows, 1_000_000)
  .option('--quick', 'fewer rounds and rows: to try the bench itself, not to believe', false)
  .addHelpText(
    'after',
    `
search compares with PostGraphile and LangChain, a package of their own: npm ci --prefix bench/search/others. Its million
rows (--large) are loaded once: their database stays on the server, in bench/.postgres unless another one is given.

Postgres: the server of QUARRY_BENCH_DATABASE_URL if set; it needs pgvector, and a user who may create databases.
Otherwise scripts/postgres.sh starts one for the time of the run, durable, in bench/.postgres, on the port
QUARRY_BENCH_PORT (54330). QUARRY_BENCH_NODE_OPTIONS is for the servers that are measured, such as
--cpu-prof --cpu-prof-dir=profiles to see where the time goes.`,
  )
  .parse()

// Ended by a signal, it still ends what it has started; see endWithUs().
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

const options = program.opts<Options>()
const chosen = program.args.length > 0 ? program.args : names
const postgres = chosen.some((name) => name in onPostgres) ? await startPostgres() : null
try {
  for (const name of chosen) {
    // Before, not after: the checkout may change while minutes pass.
    const run = describeRun(name in onPostgres && postgres ? postgres.versions : null)
    const report =
      postgres && onPostgres[name]
        ? await onPostgres[name](postgres, options)
        : await onNothing[name]?.(options)
    if (!report) continue
    const markdown = toMarkdown(report)
    console.log(`\n${markdown}\n\n_${run}_`)
    if (options.write) writeInto(documentPath, `bench:${name}`, markdown, run)
  }
} finally {
  await postgres?.stop()
}
