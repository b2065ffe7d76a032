import { setTimeout as delay } from 'node:timers/promises'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { listAgents } from './cli/agents.ts'
import { backfill } from './cli/backfill.ts'
import { ApiClient } from './cli/client.ts'
import { type Connection, connect } from './cli/connect.ts'
import { runDemo } from './cli/demo.ts'
import { waitForEmbeddings } from './cli/embeddings.ts'
import { extract } from './cli/extract.ts'
import { importPaths, requireFiles } from './cli/import.ts'
import { showIndexes } from './cli/index-health.ts'
import { Interrupted, interruptExitCodes, interruptSignal } from './cli/interrupt.ts'
import { jobKinds, jobStates } from './cli/job-progress.ts'
import { cancelJob, listJobs, retryJob, watchJob } from './cli/jobs.ts'
import { showKnowledge } from './cli/knowledge.ts'
import { search } from './cli/search.ts'
import { status } from './cli/status.ts'
import { paint, paintWarning, say, warn } from './cli/terminal.ts'
import { watchStatus } from './cli/watch.ts'
import { type Config, parseConfig } from './config.ts'
import type { Database } from './db/database.ts'
import { entityKinds } from './embedding/spaces.ts'
import { errorMessage, QuarryError } from './errors.ts'
import { chatFormats } from './ingest/formats/format.ts'
import { createLogger } from './log.ts'

/** Supervisors kill what has not ended ten seconds after SIGTERM. */
const stopLimitMs = 9_000

/** Exit codes: what a script may rely on. */
const exit = { ok: 0, failed: 1, usage: 2 } as const

const program = new Command('quarry')
  .description(
    'Mines a team chat for knowledge, embeds everything by itself, and finds it again by meaning and by words.',
  )
  .addHelpText(
    'after',
    '\nConfiguration is read from the environment; see docs/configuration.md.\nExit codes: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C before it was done.',
  )
  .showHelpAfterError('(quarry --help shows what there is)')
  .exitOverride()
  .configureOutput({ writeErr: (text) => process.stderr.write(text) })

program
  .command('serve')
  .description('serve the API and do the work, until stopped')
  .action(() => runApp('server'))

program
  .command('worker')
  .description('do the work of a server on the same Postgres (DATABASE_URL), without an API')
  .action(() => runApp('worker'))

program
  .command('migrate')
  .description('bring the database to the state of this version and end; a server does the same at its start')
  .action(async () => {
    const applied = await withDatabase(parseConfig(process.env), async (_database, applied) => applied)
    say(applied.length > 0 ? `Applied ${applied.join(', ')}` : 'Nothing to do: the database is up to date')
  })

program
  .command('doctor')
  .description('look whether all is as it should be, and say what to do where it is not; changes nothing')
  .option('--json', 'as JSON: name, state, message and remedy of each check', false)
  .addHelpText(
    'after',
    '\nExit codes: 0 all is well (warnings allowed), 1 something is wrong, 2 wrong usage.',
  )
  .action(async ({ json }: { json: boolean }) => {
    const { runDoctor } = await import('./cli/doctor.ts')
    if (!(await runDoctor(process.env, json))) process.exitCode = exit.failed
  })

interface ImportCommandOptions {
  format: string
  source?: string
  extract: boolean
  wait: boolean
}

program
  .command('import')
  .description('import chat exports: Telegram, Slack (zip or folder), Discord, IRC logs, JSONL')
  .argument('<path...>', 'files or folders')
  .addOption(
    new Option('-f, --format <format>', 'what they look like')
      .choices(['AUTO', ...chatFormats])
      .default('AUTO'),
  )
  .option('-s, --source <name>', 'name of the source; else what the export states, or the name of the file')
  .option('-x, --extract', 'extract knowledge from what they bring, however old', false)
  .option('--no-wait', 'do not wait until everything is embedded (only beside a running server)')
  .action(async (paths: string[], options: ImportCommandOptions) => {
    await requireFiles(paths)
    await withApi(async (connection) => {
      const { format, source, extract } = options
      await importPaths(connection, paths, { format, sourceName: source ?? null, extract })
      if (!options.wait && connection.isServer) return
      const coverage = await waitForEmbeddings(connection)
      const failed = coverage.reduce((sum, kind) => sum + kind.failed, 0)
      if (failed > 0)
        throw new QuarryError(`${failed} texts could not be embedded; quarry status and the API say why`)
    })
  })

program
  .command('extract')
  .description('read messages for topics and atoms: those that are no noise and were not read before')
  .addOption(
    new Option('-l, --last <period>', 'the time up to now')
      .choices(['24h', '7d', '30d'])
      .conflicts(['from', 'to']),
  )
  .option('--from <moment>', 'sent from this moment on, such as 2026-05-04T09:30:00Z')
  .option('--to <moment>', 'sent before this moment')
  .option('-a, --agent <name>', 'the agent that reads; else the default one, or as the environment says')
  .action((options: { last?: string; from?: string; to?: string; agent?: string }) =>
    withApi(async (connection) => {
      const hasRange = options.from !== undefined || options.to !== undefined
      const period = {
        last: hasRange ? null : `LAST_${(options.last ?? '24h').toUpperCase()}`,
        from: options.from ?? null,
        to: options.to ?? null,
      }
      await extract(connection, period, options.agent ?? null)
      await showKnowledge(connection.client, 10)
    }),
  )

program
  .command('agents')
  .description('list who reads messages for knowledge, and by which model')
  .action(() => withApi(({ client }) => listAgents(client)))

program
  .command('search')
  .description('search by meaning and by words')
  .argument('<query...>', 'what to look for')
  .addOption(
    new Option('-m, --mode <mode>', 'how to compare')
      .choices(['HYBRID', 'SEMANTIC', 'KEYWORD'])
      .default('HYBRID'),
  )
  .addOption(kindOption('what may be found'))
  .option('-n, --first <count>', 'how many hits, 1..100', parseCount, 10)
  .action((words: string[], options: { mode: string; kind?: string[]; first: number }) =>
    withApi(async ({ client }) => {
      await search(client, words.join(' '), {
        mode: options.mode,
        kinds: options.kind ?? null,
        first: options.first,
      })
    }),
  )

program
  .command('status')
  .description('show what is embedded, how the provider does, the newest jobs, and alerts')
  .option('-w, --watch', 'go on showing it as it changes, until Ctrl-C', false)
  .action(({ watch }: { watch: boolean }) => withApi(watch ? watchStatus : status))

program
  .command('backfill')
  .description('make sure that everything is embedded')
  .addOption(kindOption('only these kinds'))
  .option('--retry-failed', 'try what had failed again', false)
  .action((options: { kind?: string[]; retryFailed: boolean }) =>
    withApi(async (connection) => {
      const { failed } = await backfill(connection, options.kind ?? null, options.retryFailed)
      if (failed > 0) throw new QuarryError(`${failed} texts could not be embedded; the API says why`)
    }),
  )

program
  .command('index')
  .description('show the vector indexes: rows, size, parameters, recall; measure them or build them anew')
  .option('--json', 'as JSON, with all that the API tells', false)
  .option('--measure', 'measure recall first: compare with exact scans', false)
  .option('--rebuild [kind]', 'build them, or that of one kind, anew first, beside those in use', readKind)
  .action((options: { json: boolean; measure: boolean; rebuild?: string | true }) =>
    withApi(({ client }) =>
      showIndexes(client, {
        json: options.json,
        measure: options.measure,
        rebuild:
          options.rebuild === undefined ? null : options.rebuild === true ? entityKinds : [options.rebuild],
      }),
    ),
  )

const jobs = program
  .command('jobs')
  .description('list the newest jobs; cancel, retry or watch one of them')
  .addOption(listOption('-s, --state <state>', 'only jobs in this state', jobStates))
  .addOption(listOption('-k, --kind <kind>', 'only jobs of this kind', jobKinds))
  .option('-n, --first <count>', 'how many, 1..100', parseCount, 20)
  // Else a command that does not exist would be an argument too many.
  .allowExcessArguments()
  .action((options: { state?: string[]; kind?: string[]; first: number }, { args }: Command) => {
    if (args[0] !== undefined) jobs.error(`error: unknown command 'jobs ${args[0]}'`)
    return withApi(({ client }) =>
      listJobs(client, { states: options.state ?? null, kinds: options.kind ?? null, first: options.first }),
    )
  })
const jobArgument = 'id as the list shows it, or a longer part of its end'
jobs
  .command('cancel')
  .description('end a job where it is; what it has done stays')
  .argument('<id>', jobArgument)
  .action((id: string) => withApi(({ client }) => cancelJob(client, id)))
jobs
  .command('retry')
  .description('take up what a failed or cancelled job has left, and follow it')
  .argument('<id>', jobArgument)
  .option('--no-wait', 'do not follow it (only beside a running server)')
  .action((id: string, { wait }: { wait: boolean }) =>
    withApi((connection) => retryJob(connection, id, wait || !connection.isServer)),
  )
jobs
  .command('watch')
  .description('follow a job to its end')
  .argument('<id>', jobArgument)
  .action((id: string) => withApi((connection) => watchJob(connection, id)))

const keys = program.command('keys').description('the encryption keys of QUARRY_ENCRYPTION_KEY')
keys
  .command('generate')
  .description('make a new encryption key and print it')
  .action(async () => {
    const { generateEncryptionKey } = await import('./providers/keys.ts')
    say(generateEncryptionKey())
  })
keys
  .command('rotate')
  .description(
    'encrypt the API keys of all providers with the first key of QUARRY_ENCRYPTION_KEY; those behind it decrypt',
  )
  .action(async () => {
    const [{ createKeyRing }, { rotateKeys }] = await Promise.all([
      import('./providers/keys.ts'),
      import('./providers/rotate-keys.ts'),
    ])
    const config = parseConfig(process.env)
    const { rotated, failed } = await withDatabase(config, (database) =>
      rotateKeys(database, createKeyRing(config.providers.encryptionKeys)),
    )
    say(
      rotated > 0
        ? `Encrypted ${rotated} ${rotated === 1 ? 'key' : 'keys'} anew`
        : 'Nothing to do: no key was encrypted anew',
    )
    if (failed.length > 0) {
      const reasons = failed.map(({ name, reason }) => `  ${name}: ${reason}`)
      throw new QuarryError(`These providers have API keys that could not be read:\n${reasons.join('\n')}`)
    }
  })

program
  .command('demo')
  .description(
    'serve the API, import the sample chat, extract what is known from it, and answer three searches',
  )
  .action(async () => {
    const config = parseConfig(process.env)
    await serve(
      { ...config, logLevel: config.logLevel === 'info' ? 'warn' : config.logLevel },
      'server',
      async (url, signal) => {
        const client = new ApiClient(url, { signal })
        await runDemo({ client, isServer: false })
        await client.close()
        say()
        say(
          `${paint.bold('GraphiQL')}  ${client.graphqlUrl}   ${paint.dim('(open in a browser; example queries are in its tabs)')}`,
        )
        say(
          `${paint.bold('API')}       ${client.graphqlUrl}   ${paint.dim('(HTTP, server-sent events, and graphql-ws)')}`,
        )
        say(paint.dim('Ctrl-C ends the server. The data stays; the next start is quicker.'))
      },
    )
  })

async function runApp(role: 'server' | 'worker'): Promise<void> {
  const config = parseConfig(process.env)
  if (role === 'worker' && config.database.kind === 'embedded') {
    throw new QuarryError(
      'A worker needs a database that a server can share: set DATABASE_URL to a Postgres. With the embedded database, the server does the work itself.',
    )
  }
  await serve(config, role, async (url) => {
    createLogger(config.logLevel).info(
      url ? { url: `${url}/graphql` } : {},
      role === 'server' ? 'Quarry serves' : 'Quarry works',
    )
  })
}

/** Runs an app until it is told to end or cannot go on. */
async function serve(
  config: Config,
  role: 'server' | 'worker',
  onReady: (url: string, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const signal = interruptSignal()
  const ended = new Promise<null>((resolve) => signal.addEventListener('abort', () => resolve(null)))
  const { startApp } = await import('./app.ts')
  const app = await startApp({ config, log: createLogger(config.logLevel), role })
  let failure: unknown = null
  try {
    const ready = onReady(app.url ?? '', signal).then(() => ended)
    failure = await Promise.race([app.failed, ended, ready])
    if (failure) throw failure
  } catch (error) {
    failure = error
    throw error
  } finally {
    const isStopped = app.stop().then(() => true)
    // A statement that hangs, or a machine that is too busy: what is left is taken over as after a kill.
    if (!(await Promise.race([isStopped, delay(stopLimitMs, false, { ref: false })]))) {
      createLogger(config.logLevel).warn({ stopLimitMs }, 'Not all has ended; it is left as it is')
      if (failure) warn(paint.red(errorMessage(failure)))
      process.exit(failure ? exit.failed : exit.ok)
    }
  }
}

/** For what no API should do: opens the database itself, migrated. @param work is given the migrations just applied */
async function withDatabase<Result>(
  config: Config,
  work: (database: Database, applied: readonly string[]) => Promise<Result>,
): Promise<Result> {
  const [{ openDatabase }, { migrate }] = await Promise.all([
    import('./db/database.ts'),
    import('./db/migrate.ts'),
  ])
  const database = await openDatabase(config.database, {
    log: createLogger(config.logLevel),
    onFailure: dieOf,
  })
  try {
    return await work(database, await migrate(database))
  } finally {
    await database.close()
  }
}

async function withApi(work: (connection: Connection) => Promise<void>): Promise<void> {
  const connection = await connect(parseConfig(process.env), interruptSignal())
  try {
    const failed = connection.failed.then((error) => {
      throw error
    })
    await Promise.race([work(connection), failed])
  } catch (error) {
    // Said before what was started inside this command is stopped, which may take some seconds.
    if (error instanceof Interrupted && error.message) warn(error.message)
    throw error
  } finally {
    await connection.close()
  }
}

function kindOption(description: string): Option {
  return listOption('-k, --kind <kind>', description, entityKinds)
}

/** Given several times for several values: a list after one option would swallow the words that follow. */
function listOption(flags: string, description: string, values: readonly string[]): Option {
  const option = new Option(flags, `${description}: ${values.join(', ')}; may be repeated`)
  return option.argParser<string[]>((given, earlier) => {
    const value = given.toUpperCase()
    if (values.includes(value)) return [...(earlier ?? []), value]
    throw new InvalidArgumentError(`It must be one of ${values.join(', ')}.`)
  })
}

function readKind(text: string): string {
  const kind = text.toUpperCase()
  if (entityKinds.some((each) => each === kind)) return kind
  throw new InvalidArgumentError(`It must be one of ${entityKinds.join(', ')}.`)
}

function parseCount(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count >= 1 && count <= 100) return count
  throw new InvalidArgumentError('It must be a whole number from 1 to 100.')
}

function dieOf(error: Error): void {
  warn(paintWarning.red(error.message))
  process.exit(exit.failed)
}

try {
  await program.parseAsync()
  process.exitCode ??= exit.ok
} catch (error) {
  if (error instanceof Interrupted) process.exitCode = interruptExitCodes[error.signal]
  else if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exit.ok : exit.usage
  else {
    // A QuarryError says all that a person needs; anything else is a bug, and its stack helps to find it.
    warn(
      paintWarning.red(
        error instanceof QuarryError ? error.message : String(error instanceof Error ? error.stack : error),
      ),
    )
    process.exitCode = exit.failed
  }
}
