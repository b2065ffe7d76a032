import { InvalidInputError } from '../errors.ts'
import type { ChatFormatName } from '../ingest/formats/format.ts'
import { startImport } from '../ingest/import-job.ts'
import { builder } from './builder.ts'
import { requireText, sourceNameLimit } from './input.ts'
import { JobNode, readJob } from './job.ts'

const ChatFormatEnum = builder.enumType('ChatFormat', {
  description: 'What a chat export looks like.',
  values: {
    AUTO: { description: 'Found out from the file.' },
    TELEGRAM: { description: 'Telegram Desktop, JSON: one chat or a whole account.' },
    SLACK: { description: 'Slack workspace export, zip.' },
    DISCORD: { description: 'DiscordChatExporter, JSON.' },
    IRC: { description: 'Log of an IRC client.' },
    JSONL: {
      description:
        'One JSON object a line: id, author, text, sentAt, and if there are any channel, threadId, replyTo.',
    },
  } satisfies Record<ChatFormatName | 'AUTO', { description: string }>,
})

const ImportChatInput = builder.inputType('ImportChatInput', {
  description: 'A chat export.',
  fields: (t) => ({
    file: t.field({ type: 'File', required: true, description: 'The file, as part of a multipart request.' }),
    format: t.field({ type: ChatFormatEnum, defaultValue: 'AUTO', description: 'What it looks like.' }),
    sourceName: t.string({
      description:
        'Name of the Source; the one that the export states, or the name of the file, unless given.',
    }),
    extract: t.boolean({
      defaultValue: false,
      description:
        'Whether knowledge is extracted from what it brought, however old; `result.extractJobId` names the job.',
    }),
  }),
})

const ImportChatPayload = builder.objectRef<{ jobId: string }>('ImportChatPayload').implement({
  description: 'The import that was started.',
  fields: (t) => ({
    job: t.field({
      type: JobNode,
      description:
        'Counts records: succeeded are messages, failed could not be used (`result.rejected` says why), skipped are service messages.',
      resolve: ({ jobId }, _args, context) => readJob(context, jobId),
    }),
  }),
})

builder.mutationField('importChat', (t) =>
  t.field({
    type: ImportChatPayload,
    nullable: true,
    description:
      'Stores an uploaded chat export and starts to read it. Importing the same again changes nothing.',
    args: { input: t.arg({ type: ImportChatInput, required: true, description: 'The export.' }) },
    errors: { types: [InvalidInputError] },
    resolve: async (_root, { input }, { database }) => {
      const { file } = input
      if (input.sourceName != null) requireText(input.sourceName, ['sourceName'], sourceNameLimit)
      const jobId = await startImport(
        database,
        {
          fileName: file.name,
          bytes: file.size,
          format: input.format ?? 'AUTO',
          sourceName: input.sourceName ?? null,
          extract: input.extract ?? false,
        },
        file.stream() as unknown as AsyncIterable<Uint8Array>,
      )
      return { jobId }
    },
  }),
)
