import type { Message } from '../db/generated/prisma/client.ts'
import { locateQuote } from '../knowledge/citations.ts'
import { AtomConnection } from './atom.ts'
import { builder } from './builder.ts'
import { pageById } from './id-pages.ts'
import { MessageNode } from './message.ts'
import { pageSize } from './page-size.ts'

interface CitationRow {
  quote: string
  start: number
  message: Message
}

const CitationObject = builder.objectRef<CitationRow>('Citation').implement({
  description: 'The exact words of a message that prove an atom.',
  fields: (t) => ({
    message: t.field({
      type: MessageNode,
      description: 'Where they stand.',
      resolve: ({ message }) => message,
    }),
    quote: t.exposeString('quote', { description: 'The words.' }),
    start: t.int({
      description: 'Where they begin in `message.content`, in UTF-16 units.',
      resolve: (citation) => place(citation).start,
    }),
    end: t.int({
      description: 'Where they end in `message.content`, in UTF-16 units.',
      resolve: (citation) => place(citation).end,
    }),
  }),
})

function place({ message, quote, start }: CitationRow): { start: number; end: number } {
  const found = locateQuote(message.content, quote, start)
  // A trigger removes citations that a changed text no longer bears.
  if (!found) throw new Error(`message ${message.id} no longer contains what an atom cites`)
  return found
}

builder.prismaObjectField('Atom', 'citations', (t) =>
  t.field({
    type: [CitationObject],
    description: 'What it was cut from. Empty for an atom that a person wrote.',
    select: {
      citations: { include: { message: true }, orderBy: [{ messageId: 'asc' }, { start: 'asc' }] },
    },
    resolve: ({ citations }) => citations,
  }),
)

builder.prismaObjectField('Message', 'atoms', (t) =>
  t.field({
    type: AtomConnection,
    description: 'The atoms that cite it, newest first.',
    args: {
      first: t.arg.int({
        description: `How many: ${pageSize.default} unless given, at most ${pageSize.max}.`,
      }),
      after: t.arg.string({ description: 'Only atoms after this cursor.' }),
    },
    resolve: (message, args, { loaders }) =>
      pageById(args, (page) => loaders.citingAtoms.load({ messageId: message.id, ...page })),
  }),
)
