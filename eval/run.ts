import { Command, Option } from 'commander'
import { describeRun, writeInto } from '../bench/report.ts'
import { QuarryError, SetupError } from '../src/errors.ts'
import { documentPath, type QualityReport, toMarkdown } from './report.ts'
import type { SearchMode } from './search.ts'

/*
 * Each evaluation is a module of its own that is loaded when it is asked for, because what one needs (a model, a
 * collection) the others may not have.
 */

const preparedHelp = `
The provider is that of QUARRY_EMBEDDING_PROVIDER and its variables, as for quarry serve. What was embedded is kept in
eval/.cache, or in databases of the server of QUARRY_EVAL_DATABASE_URL, until texts, model or migrations change.`

const program = new Command('npm run eval --').description(
  'Measures how good the results are, on collections whose answers are known, and prints tables.',
)

program
  .command('conversations')
  .description('How well the conversations of a chat are told apart.')
  .argument(
    '<folder...>',
    'collections: folders with messages.jsonl (id, channel, author, sentAt, text, cluster and perhaps replyTo)',
  )
  .option('--cross-validate', 'also fit anew without the channels that are judged (about 2 minutes)', false)
  .option(
    '--fit',
    'fit the weights to these collections and write them to src/conversations/weights.ts',
    false,
  )
  .option('--write', 'put the tables into docs/quality.md', false)
  .action(async (folders: string[], options: { crossValidate: boolean; fit: boolean; write: boolean }) => {
    const { evalConversations } = await import('./conversations.ts')
    await publish('conversations', () => evalConversations({ folders, ...options }), options.write)
  })

program
  .command('extraction')
  .description('How well knowledge is found in the labelled sample chat without a language model.')
  .option('--read', 'also print all that is made of the chat', false)
  .option(
    '--messages <file>',
    'only print what is made of the first messages of this file (as for conversations)',
  )
  .option('--limit <count>', 'how many messages of that file', Number, 300)
  .option('--rules', 'also how often each rule is right', false)
  .option('--write', 'put the tables into docs/quality.md', false)
  .action(
    async (options: { read: boolean; messages?: string; limit: number; rules: boolean; write: boolean }) => {
      const { evalExtraction } = await import('./extraction.ts')
      await publish(
        'extraction',
        () => evalExtraction({ messages: undefined, ...options }),
        options.write && options.messages === undefined,
      )
    },
  )

program
  .command('search')
  .description('How well searches by words, by meaning and by both rank what is relevant.')
  .argument(
    '<folder...>',
    'collections: folders with corpus.jsonl (id, text), queries.jsonl (id, text) and qrels.jsonl (q, d, rel)',
  )
  .addOption(new Option('--mode <mode>', 'only this one').choices(['KEYWORD', 'SEMANTIC', 'HYBRID']))
  .option(
    '--queries <ids>',
    'also print these queries (ids with commas between them, or `all`) with their first hits, the relevant ones marked',
  )
  .option('--write', 'put the tables into docs/quality.md', false)
  .addHelpText('after', preparedHelp)
  .action(async (folders: string[], options: { mode?: SearchMode; queries?: string; write: boolean }) => {
    const { evalSearch, searchModes } = await import('./search.ts')
    if (options.write && options.mode)
      throw new SetupError('--write needs all modes: leave --mode out, or --write')
    await publish(
      'search',
      () =>
        evalSearch({
          folders,
          modes: options.mode ? [options.mode] : searchModes,
          queries: options.queries === 'all' ? 'all' : (options.queries?.split(',') ?? null),
        }),
      options.write,
    )
  })

program
  .command('similarity')
  .description('How well similarity agrees with people, and which threshold tells duplicates.')
  .argument('<folder...>', 'collections: folders with pairs.jsonl (a, b and score, 0..5)')
  .option('--write', 'put the tables into docs/quality.md', false)
  .addHelpText('after', preparedHelp)
  .action(async (folders: string[], options: { write: boolean }) => {
    const { evalSimilarity } = await import('./similarity.ts')
    await publish('similarity', () => evalSimilarity({ folders }), options.write)
  })

try {
  await program.parseAsync()
} catch (error) {
  if (!(error instanceof QuarryError)) throw error
  program.error(error.message)
}

async function publish(name: string, measure: () => Promise<QualityReport>, write: boolean): Promise<void> {
  // Before, not after: the checkout may change while minutes pass.
  const run = describeRun(null)
  const markdown = toMarkdown(await measure())
  console.log(`\n${markdown}\n\n_${run}_`)
  if (write) writeInto(documentPath, `eval:${name}`, markdown, run)
}
