import { Command } from 'commander'
import { describeRun, writeInto } from '../bench/report.ts'
import { QuarryError } from '../src/errors.ts'
import { documentPath, type QualityReport, toMarkdown } from './report.ts'

/*
 * Each evaluation is a module of its own that is loaded when it is asked for, because what one needs (a model, a
 * collection) the others may not have.
 */

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
